//! The facts of an answer: model, usage, tool calls, refusal, from whole bodies and from streams.
//!
//! A stream is read event by event as it passes, so its last event counts however long it is; a
//! whole body is read from the copy at the end.

use std::collections::BTreeSet;

use amc_core::kinds::{Dialect, Usage};
use serde_json::Value;

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
    lines: Option<Lines>,
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
    /// `events` when the answer is an uncompressed stream of server-sent events.
    pub(crate) fn new(dialect: Dialect, events: bool) -> Self {
        Scanner { dialect, lines: events.then(Lines::default), stream: Stream::default() }
    }

    /// The next piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let Scanner { dialect, lines: Some(lines), stream } = self else { return };
        lines.push(piece, |data| stream.event(*dialect, data));
    }

    /// Whether a stream has said that nothing follows; clients leave at that word.
    pub(crate) fn has_ended(&self) -> bool {
        self.stream.ended
    }

    /// The facts; `copy` is the whole decoded body where there is one.
    pub(crate) fn finish(self, copy: Option<&[u8]>, is_event_stream: bool) -> AnswerFacts {
        match (self.lines, copy) {
            (Some(_), _) => self.stream.finish(),
            (None, Some(copy)) if is_event_stream => {
                let mut scanner = Scanner::new(self.dialect, true);
                scanner.push(copy);
                scanner.stream.finish()
            }
            (None, Some(copy)) => {
                serde_json::from_slice(copy).map(|body| whole(self.dialect, &body)).unwrap_or_default()
            }
            (None, None) => AnswerFacts::default(),
        }
    }
}

impl Stream {
    fn event(&mut self, dialect: Dialect, data: &[u8]) {
        if data == b"[DONE]" {
            self.ended = true;
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
        match dialect {
            Dialect::Openai if event["type"].is_string() => self.responses_event(&event),
            Dialect::Openai => self.chat_chunk(&event),
            Dialect::Anthropic => self.messages_event(&event),
        }
    }

    fn chat_chunk(&mut self, chunk: &Value) {
        self.facts.model = super::model(&chunk["model"]).or(self.facts.model.take());
        self.facts.usage = openai_usage(&chunk["usage"]).or(self.facts.usage);
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let choice_index = choice["index"].as_u64().unwrap_or(0);
            for (position, call) in (0u64..).zip(choice["delta"]["tool_calls"].as_array().into_iter().flatten()) {
                self.tool_calls.insert((choice_index, call["index"].as_u64().unwrap_or(position)));
            }
            self.facts.refusal |= says(&choice["delta"]["refusal"]) || choice["finish_reason"] == "content_filter";
        }
    }

    fn responses_event(&mut self, event: &Value) {
        if matches!(event["type"].as_str(), Some("response.completed" | "response.incomplete" | "response.failed")) {
            self.facts = whole(Dialect::Openai, &event["response"]);
            self.ended = true;
        } else if event["response"].is_object() {
            self.facts.model = super::model(&event["response"]["model"]).or(self.facts.model.take());
        }
    }

    fn messages_event(&mut self, event: &Value) {
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
                self.facts.refusal |= event["delta"]["stop_reason"] == "refusal";
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
fn whole(dialect: Dialect, body: &Value) -> AnswerFacts {
    let mut facts = AnswerFacts { model: super::model(&body["model"]), ..AnswerFacts::default() };
    let usage = &body["usage"];
    match dialect {
        Dialect::Anthropic => {
            let tokens = (usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64());
            if let (Some(input_tokens), Some(output_tokens)) = tokens {
                facts.usage = Some(Usage { input_tokens, output_tokens });
            }
            facts.tool_calls = count_where(&body["content"], is_tool_use);
            facts.refusal = body["stop_reason"] == "refusal";
        }
        Dialect::Openai => {
            facts.usage = openai_usage(usage);
            let choices = || body["choices"].as_array().into_iter().flatten();
            facts.tool_calls = choices().map(|choice| super::count(&choice["message"]["tool_calls"])).sum();
            facts.tool_calls += count_where(&body["output"], is_call);
            facts.refusal =
                choices()
                    .any(|choice| says(&choice["message"]["refusal"]) || choice["finish_reason"] == "content_filter")
                    || body["incomplete_details"]["reason"] == "content_filter"
                    || body["output"].as_array().into_iter().flatten().any(|item| {
                        item["content"].as_array().into_iter().flatten().any(|part| part["type"] == "refusal")
                    });
        }
    }
    facts
}

fn openai_usage(usage: &Value) -> Option<Usage> {
    let tokens = |names: [&str; 2]| names.iter().find_map(|name| usage[name].as_u64());
    let input_tokens = tokens(["prompt_tokens", "input_tokens"])?;
    // Embeddings have no tokens out.
    Some(Usage { input_tokens, output_tokens: tokens(["completion_tokens", "output_tokens"]).unwrap_or(0) })
}

fn is_tool_use(block: &Value) -> bool {
    block["type"].as_str().is_some_and(|kind| kind.ends_with("tool_use"))
}

fn is_call(item: &Value) -> bool {
    item["type"].as_str().is_some_and(|kind| kind.ends_with("_call"))
}

fn says(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn count_where(items: &Value, wanted: fn(&Value) -> bool) -> u32 {
    let found = items.as_array().into_iter().flatten().filter(|item| wanted(item)).count();
    u32::try_from(found).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use amc_testkit::answer::{Answer, chat, messages, responses};
    use serde_json::json;

    fn answer(prompt: &str) -> Answer {
        let request = json!({"model": "m-1", "messages": [{"role": "user", "content": prompt}],
            "tools": [{"type": "function", "function": {"name": "look"}}]});
        Answer::to(prompt.as_bytes(), &request)
    }

    fn streamed(dialect: Dialect, events: &[String], piece_len: usize) -> (AnswerFacts, bool) {
        let mut scanner = Scanner::new(dialect, true);
        for piece in events.concat().as_bytes().chunks(piece_len) {
            scanner.push(piece);
        }
        let ended = scanner.has_ended();
        (scanner.finish(None, true), ended)
    }

    fn plain(dialect: Dialect, body: &Value) -> AnswerFacts {
        Scanner::new(dialect, false).finish(Some(body.to_string().as_bytes()), false)
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
}
