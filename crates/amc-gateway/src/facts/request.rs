//! The facts of a request: model, stream, system prompt, tools (OpenAI chat and responses, its forms
//! with files, Anthropic messages, Gemini).

use std::fmt;

use amc_core::Digest;
use amc_core::kinds::Dialect;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use super::json::Json;

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
    /// Reads a whole, decoded body and the path it goes to; a body that is neither JSON object nor
    /// form has no facts but the path's.
    pub(crate) fn read(dialect: Dialect, path: &str, media_type: &str, body: &[u8]) -> Self {
        let of_path = RequestFacts {
            model: path_model(path),
            stream: path.ends_with(":streamGenerateContent"),
            ..RequestFacts::default()
        };
        if is_form(media_type) {
            return RequestFacts { model: form_models(body).into_iter().next().or(of_path.model), ..of_path };
        }
        let Some(request @ Json::Object(_)) = Json::read(body) else {
            return of_path;
        };
        let prompt = system_prompt(dialect, &request).filter(|text| !text.contains(super::LEFT_OUT));
        RequestFacts {
            model: super::model(&request["model"]).or(of_path.model),
            stream: request["stream"].is_true() || of_path.stream,
            system_prompt_sha256: prompt.map(|text| amc_crypto::sha256(text.as_bytes())),
            tools_offered: tools(dialect, &request["tools"]),
        }
    }
}

/// Every model that a request could be read as asking for: in the path, and each `model` of its
/// body, since servers differ in which of two they take. `None` when the body cannot be read.
pub(crate) fn models_asked(path: &str, media_type: &str, body: &[u8]) -> Option<Vec<String>> {
    let mut models: Vec<String> = path_model(path).into_iter().collect();
    if is_form(media_type) {
        models.extend(form_models(body));
    } else if !body.iter().all(u8::is_ascii_whitespace) {
        let mut reader = serde_json::Deserializer::from_slice(body);
        models.extend(reader.deserialize_map(Models).ok()?);
        reader.end().ok()?;
    }
    Some(models)
}

/// The values of every `model` at the top of an object.
struct Models;

impl<'de> Visitor<'de> for Models {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
        let mut models = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "model" {
                models.push(map.next_value::<String>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(models)
    }
}

/// The model that a path names: `…/models/NAME:generateContent` (Gemini), `…/deployments/NAME/…`
/// (Azure).
fn path_model(path: &str) -> Option<String> {
    let segments: Vec<&str> = path.split('/').collect();
    let named = segments.windows(2).find_map(|pair| match pair {
        ["models" | "tunedModels", name] => name.split_once(':').map(|(name, _)| name),
        ["deployments", name] => Some(*name),
        _ => None,
    })?;
    Some(super::model_name(named))
}

fn is_form(media_type: &str) -> bool {
    media_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
}

/// The values of the parts named `model` (RFC 7578). Both line ends are read: servers differ.
fn form_models(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n");
    let parts = text.split("\n\n").zip(text.split("\n\n").skip(1));
    let named = parts.filter(|(head, _)| {
        let line = head.lines().rfind(|line| line.to_ascii_lowercase().starts_with("content-disposition:"));
        let mut parameters = line.into_iter().flat_map(|line| line.split(';')).map(str::trim);
        parameters.any(|parameter| parameter == "name=\"model\"" || parameter == "name=model")
    });
    named.filter_map(|(_, value)| value.lines().next().map(super::model_name)).collect()
}

fn tools(dialect: Dialect, tools: &Json<'_>) -> u32 {
    match dialect {
        Dialect::Openai | Dialect::Anthropic => super::count(tools),
        Dialect::Gemini => tools
            .items()
            .iter()
            .map(|tool| {
                let functions = ["functionDeclarations", "function_declarations"].map(|name| super::count(&tool[name]));
                functions.into_iter().max().unwrap_or(0).max(1)
            })
            .sum(),
    }
}

/// The texts of all system and developer turns in their order, a line feed between two.
fn system_prompt(dialect: Dialect, request: &Json<'_>) -> Option<String> {
    let mut texts = Vec::new();
    match dialect {
        Dialect::Openai => texts.push(super::text_of(&request["instructions"])),
        Dialect::Anthropic => texts.push(super::text_of(&request["system"])),
        Dialect::Gemini => {
            for name in ["systemInstruction", "system_instruction"] {
                let instruction = &request[name];
                let parts = if instruction.is_object() { &instruction["parts"] } else { instruction };
                let one = parts["text"].as_str().map(str::to_owned);
                texts.push(one.unwrap_or_else(|| super::text_of(parts)));
            }
        }
    }
    for turns in ["messages", "input"].map(|key| request[key].items()) {
        let system = turns.iter().filter(|turn| turn["role"] == *"system" || turn["role"] == *"developer");
        texts.extend(system.map(|turn| super::text_of(&turn["content"])));
    }
    texts.retain(|text| !text.is_empty());
    if texts.is_empty() { None } else { Some(texts.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn facts(dialect: Dialect, body: &Value) -> RequestFacts {
        RequestFacts::read(dialect, "/v1/x", "application/json", body.to_string().as_bytes())
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
        let gemini = json!({"systemInstruction": {"parts": [{"text": "Be kind."}, {"text": "Be brief."}]},
            "tools": [{"functionDeclarations": [{}, {}]}, {"googleSearch": {}}]});
        let read = facts(Dialect::Gemini, &gemini);
        assert_eq!((read.system_prompt_sha256, read.tools_offered), (expected, 3));
    }

    #[test]
    fn the_model_may_stand_in_the_path_or_in_a_form() {
        let read = |path: &str, media_type: &str, body: &str| {
            let facts = RequestFacts::read(Dialect::Gemini, path, media_type, body.as_bytes());
            (facts.model, facts.stream)
        };
        let gemini = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
        assert_eq!(read(gemini, "application/json", "{}"), (Some("gemini-2.5-pro".into()), true));
        assert_eq!(read("/v1beta/models/g:countTokens", "", ""), (Some("g".into()), false));
        assert_eq!(read("/openai/deployments/gpt-4o/chat/completions", "", "{}"), (Some("gpt-4o".into()), false));
        assert_eq!(read("/v1/models", "", "").0, None);
        let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nmodel\r\n--b\r\n\
                    Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n";
        assert_eq!(
            read("/v1/audio/transcriptions", "multipart/form-data; boundary=b", form).0,
            Some("whisper-1".into())
        );
    }

    #[test]
    fn every_model_that_a_body_could_mean_is_found() {
        let asked = |body: &str| models_asked("/v1/chat/completions", "application/json", body.as_bytes());
        assert_eq!(
            asked(r#"{"model":"a","messages":[{"model":"no"}],"mod\u0065l":"b"}"#),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(asked("{}"), Some(vec![]));
        assert_eq!(asked(" "), Some(vec![]));
        for unreadable in ["[1]", "{\"model\":\"a\"", "{\"model\":7}", "{\"model\":\"a\"} x", "model=a"] {
            assert_eq!(asked(unreadable), None, "{unreadable}");
        }
        let azure = models_asked("/openai/deployments/a/chat/completions", "application/json", br#"{"model":"b"}"#);
        assert_eq!(azure, Some(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn what_is_no_request_has_no_facts() {
        for body in [&b""[..], b"[1]", b"\"model\"", b"--boundary\r\n", b"{\"model\": \"m\""] {
            assert_eq!(RequestFacts::read(Dialect::Openai, "/v1/x", "", body), RequestFacts::default());
        }
    }
}
