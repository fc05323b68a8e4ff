//! The facts of a request: model, stream, system prompt, tools (OpenAI chat and responses,
//! Anthropic messages).

use amc_core::Digest;
use amc_core::kinds::Dialect;
use serde_json::Value;

/// What a request says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestFacts {
    /// The model asked for.
    pub(crate) model: Option<String>,
    /// Whether a stream was asked for.
    pub(crate) stream: bool,
    /// SHA-256 of the system prompt's text.
    pub(crate) system_prompt_sha256: Option<Digest>,
    /// Tools offered.
    pub(crate) tools_offered: u32,
}

impl RequestFacts {
    /// Reads a whole, decoded body; one that is no JSON object has no facts.
    pub(crate) fn read(dialect: Dialect, body: &[u8]) -> Self {
        let Ok(request @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else {
            return RequestFacts::default();
        };
        let prompt = system_prompt(dialect, &request);
        RequestFacts {
            model: super::model(&request["model"]),
            stream: request["stream"] == true,
            system_prompt_sha256: prompt.map(|text| amc_crypto::sha256(text.as_bytes())),
            tools_offered: super::count(&request["tools"]),
        }
    }
}

/// The texts of all system and developer turns in their order, a line feed between two.
fn system_prompt(dialect: Dialect, request: &Value) -> Option<String> {
    let mut texts = Vec::new();
    let field = match dialect {
        Dialect::Openai => "instructions",
        Dialect::Anthropic => "system",
    };
    texts.push(super::text_of(&request[field]));
    for turns in ["messages", "input"].iter().filter_map(|key| request[key].as_array()) {
        let system = turns.iter().filter(|turn| turn["role"] == "system" || turn["role"] == "developer");
        texts.extend(system.map(|turn| super::text_of(&turn["content"])));
    }
    texts.retain(|text| !text.is_empty());
    if texts.is_empty() { None } else { Some(texts.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(dialect: Dialect, body: &Value) -> RequestFacts {
        RequestFacts::read(dialect, body.to_string().as_bytes())
    }

    #[test]
    fn one_system_prompt_has_one_digest_in_every_api() {
        let expected = Some(amc_crypto::sha256(b"Be kind.\nBe brief."));
        let chat = json!({"model": "m", "stream": true, "tools": [{}, {}], "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "not this"},
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}]});
        let read = facts(Dialect::Openai, &chat);
        assert_eq!(read.system_prompt_sha256, expected);
        assert_eq!((read.model.as_deref(), read.stream, read.tools_offered), (Some("m"), true, 2));
        let responses = json!({"instructions": "Be kind.", "input": [{"role": "developer", "content": "Be brief."}]});
        assert_eq!(facts(Dialect::Openai, &responses).system_prompt_sha256, expected);
        let messages = json!({"system": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}]});
        assert_eq!(facts(Dialect::Anthropic, &messages).system_prompt_sha256, expected);
    }

    #[test]
    fn what_is_no_request_has_no_facts() {
        for body in [&b""[..], b"[1]", b"\"model\"", b"--boundary\r\n", b"{\"model\": \"m\""] {
            assert_eq!(RequestFacts::read(Dialect::Openai, body), RequestFacts::default());
        }
    }
}
