//! What the demo model says: a pure function of the request, in the shapes of four APIs.
//!
//! Three words in a prompt change the answer's shape, so that tests can ask for it: `call a tool`
//! (when tools were offered), `refuse this`, and `say nothing`.

use serde_json::{Value, json};

/// The model's name when the request names none.
pub const MODEL: &str = "amc-demo-model";

/// One answer before it takes the shape of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Derived from the request's bytes.
    pub id: String,
    /// The model that was asked for.
    pub model: String,
    /// The text, in pieces as a stream sends them.
    pub pieces: Vec<String>,
    /// Name of the tool that it calls.
    pub tool: Option<String>,
    /// Whether it refuses.
    pub refuses: bool,
    /// Words in.
    pub input_tokens: u64,
    /// Words out.
    pub output_tokens: u64,
}

impl Answer {
    /// The answer to a request body.
    pub fn to(body: &[u8], request: &Value) -> Self {
        let prompt = last_user_text(request);
        let tool = request["tools"][0].clone();
        let names = [&tool["function"]["name"], &tool["name"], &tool["functionDeclarations"][0]["name"]];
        let tool = names.into_iter().find_map(Value::as_str).map(str::to_owned);
        let tool = tool.filter(|_| prompt.contains("call a tool"));
        let refuses = prompt.contains("refuse this");
        let heard: String = prompt.chars().take(200).collect();
        let text = match (refuses, prompt.contains("say nothing")) {
            (true, _) => "The demo model refuses, because the prompt asked it to.".to_owned(),
            (_, true) => String::new(),
            _ => format!("This is a demo model, not a language model. It heard: {heard}"),
        };
        let pieces: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        Answer {
            id: amc_crypto::sha256(body).to_string()[..16].to_owned(),
            model: request["model"].as_str().unwrap_or(MODEL).to_owned(),
            output_tokens: pieces.len() as u64,
            input_tokens: words(request),
            pieces,
            tool,
            refuses,
        }
    }

    /// The whole text.
    pub fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// `POST /v1/chat/completions`.
pub mod chat {
    use super::{Answer, Value, json};

    /// The plain answer.
    pub fn whole(answer: &Answer) -> Value {
        let mut message = json!({"role": "assistant", "content": answer.text(), "refusal": null});
        if answer.refuses {
            message = json!({"role": "assistant", "content": null, "refusal": answer.text()});
        }
        if let Some(tool) = &answer.tool {
            message["content"] = Value::Null;
            message["tool_calls"] = json!([{"id": format!("call_{}", answer.id), "type": "function",
                "function": {"name": tool, "arguments": "{}"}}]);
        }
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish(answer)});
        json!({"id": format!("chatcmpl-{}", answer.id), "object": "chat.completion", "created": 0,
            "model": answer.model, "choices": [choice], "usage": usage(answer)})
    }

    /// The events of a stream, `[DONE]` included.
    pub fn stream(answer: &Answer, include_usage: bool) -> Vec<String> {
        let chunk = |delta: Value, finish: Option<&str>| {
            json!({"id": format!("chatcmpl-{}", answer.id), "object": "chat.completion.chunk", "created": 0,
                "model": answer.model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        };
        let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
        if let Some(tool) = &answer.tool {
            let function = json!({"name": tool, "arguments": "{}"});
            let call =
                json!([{"index": 0, "id": format!("call_{}", answer.id), "type": "function", "function": function}]);
            chunks.push(chunk(json!({"tool_calls": call}), None));
        } else {
            let key = if answer.refuses { "refusal" } else { "content" };
            chunks.extend(answer.pieces.iter().map(|piece| chunk(json!({key: piece}), None)));
        }
        chunks.push(chunk(json!({}), Some(finish(answer))));
        if include_usage {
            let mut last = chunk(json!({}), None);
            last["choices"] = json!([]);
            last["usage"] = usage(answer);
            chunks.push(last);
        }
        let events = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
        events.chain(["data: [DONE]\n\n".to_owned()]).collect()
    }

    fn finish(answer: &Answer) -> &'static str {
        if answer.tool.is_some() { "tool_calls" } else { "stop" }
    }

    fn usage(answer: &Answer) -> Value {
        json!({"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens})
    }
}

/// `POST /v1/messages`.
pub mod messages {
    use super::{Answer, Value, json};

    /// The plain answer.
    pub fn whole(answer: &Answer) -> Value {
        let mut content = vec![json!({"type": "text", "text": answer.text()})];
        if let Some(tool) = &answer.tool {
            content.push(json!({"type": "tool_use", "id": format!("toolu_{}", answer.id), "name": tool, "input": {}}));
        }
        let mut message = envelope(answer, answer.output_tokens);
        message["content"] = content.into();
        message["stop_reason"] = stop_reason(answer).into();
        message
    }

    /// The events of a stream.
    pub fn stream(answer: &Answer) -> Vec<String> {
        let mut events = vec![
            json!({"type": "message_start", "message": envelope(answer, 1)}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ];
        events.extend(answer.pieces.iter().map(
            |piece| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}),
        ));
        events.push(json!({"type": "content_block_stop", "index": 0}));
        if let Some(tool) = &answer.tool {
            let block = json!({"type": "tool_use", "id": format!("toolu_{}", answer.id), "name": tool, "input": {}});
            events.push(json!({"type": "content_block_start", "index": 1, "content_block": block}));
            events.push(json!({"type": "content_block_stop", "index": 1}));
        }
        events.push(json!({"type": "message_delta",
            "delta": {"stop_reason": stop_reason(answer), "stop_sequence": null},
            "usage": {"output_tokens": answer.output_tokens}}));
        events.push(json!({"type": "message_stop"}));
        events.iter().map(super::named).collect()
    }

    fn envelope(answer: &Answer, output_tokens: u64) -> Value {
        json!({"id": format!("msg_{}", answer.id), "type": "message", "role": "assistant", "model": answer.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": answer.input_tokens, "output_tokens": output_tokens}})
    }

    fn stop_reason(answer: &Answer) -> &'static str {
        match (answer.refuses, &answer.tool) {
            (true, _) => "refusal",
            (_, Some(_)) => "tool_use",
            _ => "end_turn",
        }
    }
}

/// `POST /v1beta/models/{model}:generateContent` (or `/v1/`) and `:streamGenerateContent?alt=sse`.
pub mod gemini {
    use super::{Answer, Value, json};

    /// The plain answer.
    pub fn whole(answer: &Answer) -> Value {
        last(answer, &answer.text())
    }

    /// The events of a stream; the last one has the usage.
    pub fn stream(answer: &Answer) -> Vec<String> {
        let pieces = answer.pieces.iter().map(|piece| chunk(answer, &[json!({"text": piece})], None));
        pieces.chain([last(answer, "")]).map(|chunk| format!("data: {chunk}\r\n\r\n")).collect()
    }

    /// What ends an answer: a tool call where there is one, how it ended, and the usage.
    fn last(answer: &Answer, text: &str) -> Value {
        let mut parts = vec![json!({"text": text})];
        if let Some(tool) = &answer.tool {
            parts.push(json!({"functionCall": {"name": tool, "args": {}}}));
        }
        let mut last = chunk(answer, &parts, Some(if answer.refuses { "SAFETY" } else { "STOP" }));
        last["usageMetadata"] = usage(answer);
        last
    }

    fn chunk(answer: &Answer, parts: &[Value], finish: Option<&str>) -> Value {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        json!({"candidates": [candidate], "modelVersion": answer.model, "responseId": answer.id})
    }

    fn usage(answer: &Answer) -> Value {
        json!({"promptTokenCount": answer.input_tokens, "candidatesTokenCount": answer.output_tokens,
            "totalTokenCount": answer.input_tokens + answer.output_tokens})
    }
}

/// `POST /v1/responses`.
pub mod responses {
    use super::{Answer, Value, json};

    /// The plain answer.
    pub fn whole(answer: &Answer) -> Value {
        let kind = if answer.refuses { "refusal" } else { "output_text" };
        let key = if answer.refuses { "refusal" } else { "text" };
        let mut output = vec![json!({"type": "message", "id": format!("msg_{}", answer.id), "status": "completed",
            "role": "assistant", "content": [{"type": kind, key: answer.text(), "annotations": []}]})];
        if let Some(tool) = &answer.tool {
            output.push(json!({"type": "function_call", "id": format!("fc_{}", answer.id), "name": tool,
                "call_id": format!("call_{}", answer.id), "arguments": "{}", "status": "completed"}));
        }
        json!({"id": format!("resp_{}", answer.id), "object": "response", "created_at": 0, "status": "completed",
            "model": answer.model, "output": output, "error": null, "incomplete_details": null, "instructions": null,
            "metadata": {}, "parallel_tool_calls": true, "temperature": null, "top_p": null, "tool_choice": "auto",
            "tools": [], "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens,
                "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": answer.input_tokens + answer.output_tokens}})
    }

    /// The events of a stream.
    pub fn stream(answer: &Answer) -> Vec<String> {
        let response = whole(answer);
        let mut opened = response.clone();
        opened["status"] = "in_progress".into();
        opened["output"] = json!([]);
        opened["usage"] = Value::Null;
        let mut events = vec![json!({"type": "response.created", "sequence_number": 0, "response": opened})];
        for (sequence, piece) in (1u64..).zip(&answer.pieces) {
            events.push(json!({"type": "response.output_text.delta", "sequence_number": sequence, "logprobs": [],
                "item_id": format!("msg_{}", answer.id), "output_index": 0, "content_index": 0, "delta": piece}));
        }
        let last = events.len() as u64;
        events.push(json!({"type": "response.completed", "sequence_number": last, "response": response}));
        events.iter().map(super::named).collect()
    }
}

/// An event with its name, as Anthropic's and the Responses API write it.
fn named(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

/// The text of the last user turn, wherever the API puts it.
fn last_user_text(request: &Value) -> String {
    if let Some(text) = request["input"].as_str() {
        return text.to_owned();
    }
    let turns = ["messages", "input", "contents"].iter().find_map(|key| request[*key].as_array());
    let last = turns.and_then(|turns| turns.iter().rev().find(|turn| turn["role"] == "user"));
    last.map(|turn| text_of(&turn["content"]) + &text_of(&turn["parts"])).unwrap_or_default()
}

/// A content that is a text, or the texts of its parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// Words in all texts of the request; the demo model's tokens.
fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(fields) => {
            ["messages", "input", "system", "instructions", "content", "text", "contents", "parts", "systemInstruction"]
                .iter()
                .filter_map(|key| fields.get(*key))
                .map(words)
                .sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_has_the_same_answer() {
        let request = json!({"model": "m", "messages": [{"role": "user", "content": "hello there"}]});
        let body = request.to_string();
        let answer = Answer::to(body.as_bytes(), &request);
        assert_eq!(answer, Answer::to(body.as_bytes(), &request));
        assert!(answer.text().starts_with("This is a demo model") && answer.text().ends_with("hello there"));
        assert_eq!(answer.input_tokens, 2);
        let streamed: String = chat::stream(&answer, true).concat();
        assert!(streamed.ends_with("data: [DONE]\n\n") && streamed.contains("\"prompt_tokens\":2"), "{streamed}");
    }

    #[test]
    fn gemini_hears_its_contents_and_counts_in_the_last_event() {
        let turn = json!({"role": "user", "parts": [{"text": "hello there"}]});
        let request = json!({"contents": [turn], "systemInstruction": {"parts": [{"text": "Be brief."}]}});
        let answer = Answer::to(b"", &request);
        assert_eq!((answer.text().ends_with("hello there"), answer.input_tokens), (true, 4));
        assert_eq!(gemini::whole(&answer)["usageMetadata"]["promptTokenCount"], 4);
        let events = gemini::stream(&answer);
        assert!(events.iter().rev().skip(1).all(|event| !event.contains("usageMetadata")), "{events:?}");
        assert!(events.last().is_some_and(|event| event.contains("usageMetadata")), "{events:?}");
    }

    #[test]
    fn a_gemini_stream_ends_as_the_whole_answer_does() {
        let turn = json!({"role": "user", "parts": [{"text": "refuse this"}]});
        let events = gemini::stream(&Answer::to(b"", &json!({"contents": [turn]})));
        assert!(events.last().is_some_and(|event| event.contains("SAFETY")), "{events:?}");
        let turn = json!({"role": "user", "parts": [{"text": "call a tool"}]});
        let tools = json!([{"functionDeclarations": [{"name": "look"}]}]);
        let events = gemini::stream(&Answer::to(b"", &json!({"contents": [turn], "tools": tools})));
        assert!(events.last().is_some_and(|event| event.contains("look")), "{events:?}");
    }

    #[test]
    fn it_calls_a_tool_or_refuses_when_asked() {
        let tools = json!([{"type": "function", "function": {"name": "look"}}]);
        let request = json!({"messages": [{"role": "user", "content": "call a tool"}], "tools": tools});
        let answer = Answer::to(b"", &request);
        assert_eq!(chat::whole(&answer)["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "look");
        let answer = Answer::to(b"", &json!({"messages": [{"role": "user", "content": "refuse this"}]}));
        assert_eq!(messages::whole(&answer)["stop_reason"], "refusal");
    }
}
