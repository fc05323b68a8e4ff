//! The calls of a session as they are held until it ends: what scoring asks of them, and every name once. A session of a
//! busy day has very many.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::num::NonZeroU32;

use amc_core::kinds::{AgentKeyIgnored, CallOutcome, LlmRequest, LlmResponse};
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

/// A call: the request and the last answer to it. A bundle may hold half a million, so it is kept small: names, prompts and
/// versions are numbers, and of the tokens only their sum is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    request_index: u64,
    request_ns: i64,
    answer_index: u64,
    answer_ns: i64,
    first_byte_us: u64,
    tokens: u64,
    /// The request's id as a number, to tell that an answer names it.
    id: u32,
    provider: u32,
    version: u32,
    asked: Option<NonZeroU32>,
    answered: Option<NonZeroU32>,
    system_prompt: Option<NonZeroU32>,
    status: u16,
    request_tier: Tier,
    answer_tier: Tier,
    /// How it ended, where it was answered.
    outcome: Option<CallOutcome>,
    /// What it is, as bits.
    is: u8,
}

const STREAM: u8 = 1;
const OFFERS_TOOLS: u8 = 2;
const CALLS_TOOLS: u8 = 4;
const HAS_USAGE: u8 = 8;

const _: () = assert!(size_of::<Call>() <= 80);

impl Call {
    /// Whether there is an answer, and it arrived whole, whatever its status.
    pub(crate) fn is_complete(&self) -> bool {
        self.outcome == Some(CallOutcome::Complete)
    }

    /// Whether it arrived whole and with a status of success.
    pub(crate) fn is_good(&self) -> bool {
        self.is_complete() && (200..300).contains(&self.status)
    }

    const fn is(&self, bit: u8) -> bool {
        self.is & bit != 0
    }

    /// Whether a stream was asked for.
    pub(crate) const fn is_stream(&self) -> bool {
        self.is(STREAM)
    }

    /// Whether the request offers tools.
    pub(crate) const fn offers_tools(&self) -> bool {
        self.is(OFFERS_TOOLS)
    }

    /// Whether the answer calls a tool.
    pub(crate) const fn calls_tools(&self) -> bool {
        self.is(CALLS_TOOLS)
    }

    /// The request's event.
    pub(crate) const fn request(&self) -> Point {
        Point { index: self.request_index, wall_ns: self.request_ns, tier: self.request_tier }
    }

    /// Its events.
    pub(crate) fn points(&self) -> Vec<Point> {
        let answer = Point { index: self.answer_index, wall_ns: self.answer_ns, tier: self.answer_tier };
        [Some(self.request()), self.outcome.map(|_| answer)].into_iter().flatten().collect()
    }

    /// From the call's beginning to the first byte of its answer.
    pub(crate) const fn first_byte_us(&self) -> u64 {
        self.first_byte_us
    }

    /// Tokens in and out, where the provider counted them.
    pub(crate) fn tokens(&self) -> Option<u64> {
        self.is(HAS_USAGE).then_some(self.tokens)
    }
}

/// The calls of a session, by position.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    list: Vec<Call>,
    /// Keys of its own that the agent sent, and to which provider.
    own_keys: Vec<(Point, u32)>,
    names: Interned<String>,
    prompts: Interned<Digest>,
    versions: Interned<u64>,
}

impl Calls {
    /// With room for so many, so that they need not move as they become more.
    pub(crate) fn with_room(calls: usize) -> Self {
        Calls { list: Vec::with_capacity(calls), ..Calls::default() }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Call> {
        self.list.iter()
    }

    pub(crate) fn provider(&self, call: &Call) -> &str {
        self.names.value(call.provider)
    }

    /// The model that was asked for.
    pub(crate) fn asked(&self, call: &Call) -> Option<&String> {
        call.asked.map(|model| self.names.value(model.get()))
    }

    /// The model that answered.
    pub(crate) fn answered(&self, call: &Call) -> Option<&String> {
        call.answered.map(|model| self.names.value(model.get()))
    }

    pub(crate) fn system_prompt(&self, call: &Call) -> Option<Digest> {
        call.system_prompt.map(|prompt| *self.prompts.value(prompt.get()))
    }

    /// The version of the gateway's configuration.
    pub(crate) fn config_version(&self, call: &Call) -> u64 {
        *self.versions.value(call.version)
    }

    /// Keys of its own that the agent sent, with the provider that they came for.
    pub(crate) fn own_keys(&self) -> impl Iterator<Item = (Point, &str)> {
        self.own_keys.iter().map(|(point, provider)| (*point, self.names.value(*provider).as_str()))
    }

    /// A key of its own that the agent sent.
    pub(crate) fn own_key(&mut self, record: &EventRecord, ignored: &AgentKeyIgnored) {
        self.own_keys.push((record.into(), self.names.number(&ignored.provider).get()));
    }

    /// A request; each comes after the one before.
    pub(crate) fn request(&mut self, record: &EventRecord, request: &LlmRequest) {
        let Point { index, wall_ns, tier } = record.into();
        self.list.push(Call {
            request_index: index,
            request_ns: wall_ns,
            answer_index: 0,
            answer_ns: 0,
            first_byte_us: 0,
            tokens: 0,
            id: number_of(&request.request_id),
            provider: self.names.number(&request.provider).get(),
            version: self.versions.number(&request.config_version).get(),
            asked: request.model.as_ref().map(|model| self.names.number(model)),
            answered: None,
            system_prompt: request.system_prompt_sha256.map(|prompt| self.prompts.number(&prompt)),
            status: 0,
            request_tier: tier,
            answer_tier: tier,
            outcome: None,
            is: when(request.stream, STREAM) | when(request.tools_offered > 0, OFFERS_TOOLS),
        });
    }

    /// An answer. They come after their request, later attempts after earlier ones.
    pub(crate) fn answer(&mut self, record: &EventRecord, response: &LlmResponse) {
        let place = self.list.binary_search_by_key(&response.request_index, |call| call.request_index);
        let id = number_of(&response.request_id);
        let Some(call) = place.ok().map(|at| &mut self.list[at]).filter(|call| call.id == id) else { return };
        let Point { index, wall_ns, tier } = record.into();
        (call.answer_index, call.answer_ns, call.answer_tier) = (index, wall_ns, tier);
        (call.outcome, call.status, call.first_byte_us) =
            (Some(response.outcome), response.status, response.first_byte_us);
        call.answered = response.model.as_ref().map(|model| self.names.number(model));
        call.is &= STREAM | OFFERS_TOOLS;
        call.is |= when(response.tool_calls > 0, CALLS_TOOLS) | when(response.usage.is_some(), HAS_USAGE);
        call.tokens = response.usage.map_or(0, |usage| usage.input_tokens.saturating_add(usage.output_tokens));
    }
}

/// Every value once, numbered from 1.
#[derive(Debug)]
struct Interned<T> {
    all: Vec<T>,
    numbers: HashMap<T, NonZeroU32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned { all: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn number(&mut self, value: &T) -> NonZeroU32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        self.all.push(value.clone());
        let number = u32::try_from(self.all.len()).ok().and_then(NonZeroU32::new);
        let number = number.expect("a log in memory has fewer names, and this is at least the first");
        self.numbers.insert(value.clone(), number);
        number
    }

    fn value(&self, number: u32) -> &T {
        &self.all[number as usize - 1]
    }
}

const fn when(holds: bool, bit: u8) -> u8 {
    if holds { bit } else { 0 }
}

/// What tells an answer that names its request's place and not its id.
fn number_of(id: &str) -> u32 {
    let mut number = DefaultHasher::new();
    id.hash(&mut number);
    let [a, b, c, d, ..] = number.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
