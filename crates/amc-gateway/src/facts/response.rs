//! The facts of an answer: model, usage, tool calls, refusal, from whole bodies and from streams.
//!
//! A stream is read event by event as it passes, so its last event counts however long it is; a
//! whole body is read from the copy at the end.

use std::collections::BTreeSet;

use amc_core::kinds::{Dialect, Usage};

use super::Decoder;
use super::json::Json;
use super::sse::Lines;

/// What an answer says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AnswerFacts {
    /// The model that answered.
    pub(crate) model: Option<String>,
    /// Tokens, where the provider said them.
    pub(crate) usage: Option<Usage>,
    /// Tool calls made.
    pub(crate) tool_calls: u32,
    /// Whether the provider's own refusal marker is there.
    pub(crate) refusal: bool,
}

/// Reads an answer as it passes.
#[derive(Debug)]
pub(crate) struct Scanner {
    dialect: Dialect,
    /// Where it is a stream of events: how it is unpacked, and its lines.
    events: Option<(Decoder, Lines)>,
    stream: Stream,
}

/// What a stream has said so far.
#[derive(Debug, Default)]
struct Stream {
    facts: AnswerFacts,
    input_tokens: Option<u64>,
    tool_calls: BTreeSet<(u64, u64)>,
    ended: bool,
}

impl Scanner {
    /// For an answer of one JSON value, which is read at its end.
    pub(crate) fn whole(dialect: Dialect) -> Self {
        Scanner { dialect, events: None, stream: Stream::default() }
    }

    /// For a stream of server-sent events, compressed or not.
    pub(crate) fn events(dialect: Dialect, encoding: Option<&str>) -> Self {
        Scanner { dialect, events: Some((Decoder::new(encoding), Lines::default())), stream: Stream::default() }
    }

    /// The next piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let Scanner { dialect, events: Some((decoder, lines)), stream } = self else { return };
        decoder.push(piece, |plain| lines.push(plain, |data| stream.event(*dialect, data)));
    }

    /// Whether a stream has said that nothing follows; clients leave at that word.
    pub(crate) fn has_ended(&self) -> bool {
        self.stream.ended
    }

    /// The facts; `body` is the decoded JSON of an answer that is no stream of events.
    pub(crate) fn finish(self, body: Option<&[u8]>) -> AnswerFacts {
        let Scanner { dialect, events, mut stream } = self;
        if let Some((mut decoder, mut lines)) = events {
            decoder.finish(|plain| lines.push(plain, |data| stream.event(dialect, data)));
            // The last line of a stream that stops need not have an end.
            lines.push(b"\n", |data| stream.event(dialect, data));
            return stream.finish();
        }
        let body = body.and_then(Json::read);
        match body {
            // Gemini's stream without `alt=sse` is one array.
            Some(Json::List(chunks)) if dialect == Dialect::Gemini => {
                chunks.iter().for_each(|chunk| stream.gemini_chunk(chunk));
                stream.finish()
            }
            Some(body) => whole(dialect, &body),
            None => AnswerFacts::default(),
        }
    }
}

impl Stream {
    fn event(&mut self, dialect: Dialect, data: &[u8]) {
        if data == b"[DONE]" {
            self.ended = true;
            return;
        }
        let Some(event) = Json::read(data) else { return };
        match dialect {
            Dialect::Openai if event["type"].as_str().is_some() => self.responses_event(&event),
            Dialect::Openai => self.chat_chunk(&event),
            Dialect::Anthropic => self.messages_event(&event),
            Dialect::Gemini => self.gemini_chunk(&event),
        }
    }

    fn gemini_chunk(&mut self, chunk: &Json<'_>) {
        let AnswerFacts { model, usage, tool_calls, refusal } = whole(Dialect::Gemini, chunk);
        self.facts.model = model.or(self.facts.model.take());
        // Each chunk says what there was until then.
        self.facts.usage = usage.or(self.facts.usage);
        self.facts.tool_calls = self.facts.tool_calls.saturating_add(tool_calls);
        self.facts.refusal |= refusal;
        let mut candidates = chunk["candidates"].items().iter();
        self.ended |= candidates.any(|candidate| candidate["finishReason"].as_str().is_some());
    }

    fn chat_chunk(&mut self, chunk: &Json<'_>) {
        self.facts.model = super::model(&chunk["model"]).or(self.facts.model.take());
        self.facts.usage = openai_usage(&chunk["usage"]).or(self.facts.usage);
        for choice in chunk["choices"].items().iter() {
            let choice_index = choice["index"].as_u64().unwrap_or(0);
            for (position, call) in (0u64..).zip(choice["delta"]["tool_calls"].items().iter()) {
                self.tool_calls.insert((choice_index, call["index"].as_u64().unwrap_or(position)));
            }
            self.facts.refusal |= says(&choice["delta"]["refusal"]) || choice["finish_reason"] == *"content_filter";
        }
    }

    fn responses_event(&mut self, event: &Json<'_>) {
        if matches!(event["type"].as_str(), Some("response.completed" | "response.incomplete" | "response.failed")) {
            self.facts = whole(Dialect::Openai, &event["response"]);
            self.ended = true;
        } else if event["response"].is_object() {
            self.facts.model = super::model(&event["response"]["model"]).or(self.facts.model.take());
        }
    }

    fn messages_event(&mut self, event: &Json<'_>) {
        match event["type"].as_str() {
            Some("message_start") => {
                self.facts.model = super::model(&event["message"]["model"]);
                self.input_tokens = event["message"]["usage"]["input_tokens"].as_u64();
            }
            Some("content_block_start") if is_tool_use(&event["content_block"]) => {
                self.tool_calls.insert((0, event["index"].as_u64().unwrap_or(0)));
            }
            Some("message_delta") => {
                // Output so far is cumulative; the input stands in the first event, or here again.
                let input = event["usage"]["input_tokens"].as_u64().or(self.input_tokens);
                if let (Some(input_tokens), Some(output_tokens)) = (input, event["usage"]["output_tokens"].as_u64()) {
                    self.facts.usage = Some(Usage { input_tokens, output_tokens });
                }
                self.facts.refusal |= event["delta"]["stop_reason"] == *"refusal";
            }
            Some("message_stop") => self.ended = true,
            _ => {}
        }
    }

    fn finish(self) -> AnswerFacts {
        let counted = u32::try_from(self.tool_calls.len()).unwrap_or(u32::MAX);
        AnswerFacts { tool_calls: self.facts.tool_calls.max(counted), ..self.facts }
    }
}

/// The facts of a body that is one JSON value.
fn whole(dialect: Dialect, body: &Json<'_>) -> AnswerFacts {
    let mut facts = AnswerFacts { model: super::model(&body["model"]), ..AnswerFacts::default() };
    let usage = &body["usage"];
    match dialect {
        Dialect::Anthropic => {
            let tokens = (usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64());
            if let (Some(input_tokens), Some(output_tokens)) = tokens {
                facts.usage = Some(Usage { input_tokens, output_tokens });
            }
            facts.tool_calls = count_where(&body["content"], is_tool_use);
            facts.refusal = body["stop_reason"] == *"refusal";
        }
        Dialect::Gemini => gemini(&mut facts, body),
        Dialect::Openai => {
            facts.usage = openai_usage(usage);
            let choices = || body["choices"].items().iter();
            facts.tool_calls = choices().map(|choice| super::count(&choice["message"]["tool_calls"])).sum();
            facts.tool_calls += count_where(&body["output"], is_call);
            facts.refusal = choices()
                .any(|choice| says(&choice["message"]["refusal"]) || choice["finish_reason"] == *"content_filter")
                || body["incomplete_details"]["reason"] == *"content_filter"
                || body["output"]
                    .items()
                    .iter()
                    .any(|item| item["content"].items().iter().any(|part| part["type"] == *"refusal"));
        }
    }
    facts
}

/// A `GenerateContentResponse`, or one chunk of a stream of them.
fn gemini(facts: &mut AnswerFacts, body: &Json<'_>) {
    facts.model = super::model(&body["modelVersion"]);
    let usage = &body["usageMetadata"];
    let tokens = |name: &str| usage[name].as_u64();
    // Thoughts are tokens out; embeddings and counts of tokens have none.
    let output = [tokens("candidatesTokenCount"), tokens("thoughtsTokenCount")];
    facts.usage = tokens("promptTokenCount")
        .map(|input_tokens| Usage { input_tokens, output_tokens: output.into_iter().flatten().sum() });
    for candidate in body["candidates"].items().iter() {
        facts.tool_calls += count_where(&candidate["content"]["parts"], |part| part["functionCall"].is_object());
        facts.refusal |= candidate["finishReason"].as_str().is_some_and(|reason| GEMINI_REFUSALS.contains(&reason));
    }
    facts.refusal |= body["promptFeedback"]["blockReason"].as_str().is_some();
}

/// Reasons to end an answer by which Gemini says that it withholds the rest.
const GEMINI_REFUSALS: [&str; 5] = ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION"];

fn openai_usage(usage: &Json<'_>) -> Option<Usage> {
    let tokens = |names: [&str; 2]| names.iter().find_map(|name| usage[name].as_u64());
    let input_tokens = tokens(["prompt_tokens", "input_tokens"])?;
    // Embeddings have no tokens out.
    Some(Usage { input_tokens, output_tokens: tokens(["completion_tokens", "output_tokens"]).unwrap_or(0) })
}

fn is_tool_use(block: &Json<'_>) -> bool {
    block["type"].as_str().is_some_and(|kind| kind.ends_with("tool_use"))
}

fn is_call(item: &Json<'_>) -> bool {
    item["type"].as_str().is_some_and(|kind| kind.ends_with("_call"))
}

fn says(value: &Json<'_>) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn count_where(items: &Json<'_>, wanted: fn(&Json<'_>) -> bool) -> u32 {
    let found = items.items().iter().filter(|item| wanted(item)).count();
    u32::try_from(found).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use amc_testkit::answer::{Answer, chat, messages, responses};
    use serde_json::{Value, json};

    fn answer(prompt: &str) -> Answer {
        let request = json!({"model": "m-1", "messages": [{"role": "user", "content": prompt}],
            "tools": [{"type": "function", "function": {"name": "look"}}]});
        Answer::to(prompt.as_bytes(), &request)
    }

    fn streamed(dialect: Dialect, events: &[String], piece_len: usize) -> (AnswerFacts, bool) {
        let mut scanner = Scanner::events(dialect, None);
        for piece in events.concat().as_bytes().chunks(piece_len) {
            scanner.push(piece);
        }
        let ended = scanner.has_ended();
        (scanner.finish(None), ended)
    }

    fn plain(dialect: Dialect, body: &Value) -> AnswerFacts {
        Scanner::whole(dialect).finish(Some(body.to_string().as_bytes()))
    }

    #[test]
    fn a_stream_and_a_whole_answer_have_the_same_facts() {
        for prompt in ["two words", "call a tool", "refuse this"] {
            let answer = answer(prompt);
            let usage = Some(Usage { input_tokens: answer.input_tokens, output_tokens: answer.output_tokens });
            for piece_len in [1, 7, 4096] {
                for (dialect, events, whole) in [
                    (Dialect::Openai, chat::stream(&answer, true), chat::whole(&answer)),
                    (Dialect::Openai, responses::stream(&answer), responses::whole(&answer)),
                    (Dialect::Anthropic, messages::stream(&answer), messages::whole(&answer)),
                ] {
                    let (facts, ended) = streamed(dialect, &events, piece_len);
                    assert!(ended, "{prompt}");
                    assert_eq!(facts, plain(dialect, &whole), "{prompt}");
                    assert_eq!(facts.usage, usage);
                    assert_eq!(facts.model.as_deref(), Some("m-1"));
                    assert_eq!(
                        (facts.tool_calls, facts.refusal),
                        (u32::from(prompt == "call a tool"), prompt == "refuse this")
                    );
                }
            }
        }
    }

    #[test]
    fn usage_is_never_invented() {
        let (facts, _) = streamed(Dialect::Openai, &chat::stream(&answer("hello"), false), 100);
        assert_eq!(facts.usage, None, "the client did not ask for it");
        let cut = messages::stream(&answer("hello"));
        let (facts, ended) = streamed(Dialect::Anthropic, &cut[..3], 100);
        assert_eq!((facts.usage, ended), (None, false), "the first event's output count is no usage");
    }

    #[test]
    fn words_within_a_text_end_nothing() {
        let prompt = "data: [DONE]\n\ndata: {\"usage\":{\"prompt_tokens\":1}}";
        let events = chat::stream(&answer(prompt), false);
        let (_, ended) = streamed(Dialect::Openai, &events[..events.len() - 1], 50);
        assert!(!ended);
    }

    #[test]
    fn gemini_says_the_same_as_an_array_and_as_events() {
        let chunks = [
            json!({"modelVersion": "g-2", "candidates": [{"content": {"parts": [{"text": "Hi"}]}}],
                "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 1}}),
            json!({"modelVersion": "g-2", "candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]},
                "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 3, "thoughtsTokenCount": 2}}),
        ];
        let expected = AnswerFacts {
            model: Some("g-2".into()),
            usage: Some(Usage { input_tokens: 4, output_tokens: 5 }),
            tool_calls: 1,
            refusal: false,
        };
        let events: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect();
        assert_eq!(streamed(Dialect::Gemini, &events, 7), (expected.clone(), true));
        assert_eq!(plain(Dialect::Gemini, &json!(chunks)), expected);
        assert!(plain(Dialect::Gemini, &json!({"promptFeedback": {"blockReason": "SAFETY"}})).refusal);
        assert!(plain(Dialect::Gemini, &json!({"candidates": [{"finishReason": "SAFETY"}]})).refusal);
    }

    #[test]
    fn a_compressed_stream_of_any_length_is_read_to_its_end() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for number in 0..60_000 {
            write!(encoder, "data: {{\"choices\":[],\"x\":\"some text {number}\"}}\n\n").expect("memory takes it");
        }
        let last =
            "data: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
        encoder.write_all(last.as_bytes()).expect("memory takes it");
        let mut scanner = Scanner::events(Dialect::Openai, Some("gzip"));
        for piece in encoder.finish().expect("memory takes it").chunks(1000) {
            scanner.push(piece);
        }
        let facts = scanner.finish(None);
        assert_eq!(facts.usage, Some(Usage { input_tokens: 1, output_tokens: 2 }));
    }
}
