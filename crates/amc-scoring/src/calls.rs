//! The calls of a session as they are held until it ends: what scoring asks of them, and every name once. A session of a
//! busy day has very many.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use amc_core::kinds::{CallOutcome, LlmRequest, LlmResponse, Usage};
use amc_core::{Digest, Tier};
use amc_evidence::EventRecord;

/// Where an event stands and how much it counts: what a fact keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) index: u64,
    pub(crate) wall_ns: i64,
    pub(crate) tier: Tier,
}

impl From<&EventRecord> for Point {
    fn from(record: &EventRecord) -> Self {
        Point { index: record.event.index, wall_ns: record.event.wall_ns, tier: record.event.tier }
    }
}

/// A call: the request and the last answer to it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The request's event.
    pub(crate) request: Point,
    /// Its id as a number, to tell that an answer names it.
    id: u64,
    provider: u32,
    model: Option<u32>,
    system_prompt: Option<u32>,
    pub(crate) config_version: u64,
    pub(crate) is_stream: bool,
    pub(crate) offers_tools: bool,
    pub(crate) answer: Option<Answer>,
}

/// An answer to a call.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) event: Point,
    model: Option<u32>,
    outcome: CallOutcome,
    status: u16,
    pub(crate) first_byte_us: u64,
    pub(crate) usage: Option<Usage>,
    pub(crate) calls_tools: bool,
}

impl Call {
    /// Whether the answer arrived whole, whatever its status.
    pub(crate) fn is_complete(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.outcome == CallOutcome::Complete)
    }

    /// Whether it arrived whole and with a status of success.
    pub(crate) fn is_good(&self) -> bool {
        self.is_complete() && self.answer.as_ref().is_some_and(|answer| (200..300).contains(&answer.status))
    }

    /// Its events.
    pub(crate) fn points(&self) -> Vec<Point> {
        [Some(self.request), self.answer.as_ref().map(|answer| answer.event)].into_iter().flatten().collect()
    }
}

/// The calls of a session, by position.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    list: Vec<Call>,
    names: Interned<String>,
    prompts: Interned<Digest>,
}

impl Calls {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Call> {
        self.list.iter()
    }

    pub(crate) fn provider(&self, call: &Call) -> &str {
        &self.names.all[call.provider as usize]
    }

    /// The model that was asked for.
    pub(crate) fn asked(&self, call: &Call) -> Option<&String> {
        call.model.map(|model| &self.names.all[model as usize])
    }

    /// The model that answered.
    pub(crate) fn answered(&self, call: &Call) -> Option<&String> {
        call.answer.as_ref()?.model.map(|model| &self.names.all[model as usize])
    }

    pub(crate) fn system_prompt(&self, call: &Call) -> Option<Digest> {
        call.system_prompt.map(|prompt| self.prompts.all[prompt as usize])
    }

    /// A request; each comes after the one before.
    pub(crate) fn request(&mut self, record: &EventRecord, request: &LlmRequest) {
        let provider = self.names.number(&request.provider);
        let model = request.model.as_ref().map(|model| self.names.number(model));
        let system_prompt = request.system_prompt_sha256.map(|prompt| self.prompts.number(&prompt));
        self.list.push(Call {
            request: record.into(),
            id: number_of(&request.request_id),
            provider,
            model,
            system_prompt,
            config_version: request.config_version,
            is_stream: request.stream,
            offers_tools: request.tools_offered > 0,
            answer: None,
        });
    }

    /// An answer. They come after their request, later attempts after earlier ones.
    pub(crate) fn answer(&mut self, record: &EventRecord, response: &LlmResponse) {
        let place = self.list.binary_search_by_key(&response.request_index, |call| call.request.index);
        let id = number_of(&response.request_id);
        let Some(at) = place.ok().filter(|at| self.list[*at].id == id) else { return };
        let model = response.model.as_ref().map(|model| self.names.number(model));
        self.list[at].answer = Some(Answer {
            event: record.into(),
            model,
            outcome: response.outcome,
            status: response.status,
            first_byte_us: response.first_byte_us,
            usage: response.usage,
            calls_tools: response.tool_calls > 0,
        });
    }
}

/// Every value once.
#[derive(Debug)]
struct Interned<T> {
    all: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned { all: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interned<T> {
    fn number(&mut self, value: &T) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).expect("a log in memory has fewer names");
        self.all.push(value.clone());
        self.numbers.insert(value.clone(), number);
        number
    }
}

fn number_of(id: &str) -> u64 {
    let mut number = DefaultHasher::new();
    id.hash(&mut number);
    number.finish()
}
