//! Files of results, understood: JUnit XML, promptfoo, inspect-ai, OpenTelemetry traces.
//!
//! What is counted is what the file says case by case; its own sums are not believed. Nothing is
//! fetched, and a document type declaration is refused.

use amc_core::kinds::{IngestType, ResultCounts};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;

/// Elements within elements; reports of real suites have a handful.
const DEPTH_MAX: usize = 64;

/// The counts of a file of this type.
///
/// # Errors
/// What is wrong with it, for the one who hands it in.
pub(crate) fn read(ingest_type: IngestType, bytes: &[u8]) -> Result<ResultCounts, String> {
    match ingest_type {
        IngestType::Junit => junit(bytes),
        IngestType::Promptfoo => promptfoo(&json(bytes)?),
        IngestType::InspectAi => inspect_ai(&json(bytes)?),
        IngestType::OtelTrace => otel(bytes),
        _ => Err("a document has no results".to_owned()),
    }
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))
}

const NONE: ResultCounts = ResultCounts { passed: 0, failed: 0, skipped: 0 };

/// How one case ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Passed,
    Failed,
    Skipped,
}

fn count(counts: &mut ResultCounts, case: Case) {
    match case {
        Case::Passed => counts.passed += 1,
        Case::Failed => counts.failed += 1,
        Case::Skipped => counts.skipped += 1,
    }
}

/// A case failed with a `failure` or `error` in it, and was skipped with a `skipped`.
fn junit(bytes: &[u8]) -> Result<ResultCounts, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let mut reader = Reader::from_str(text);
    let (mut counts, mut case, mut cases) = (NONE, None, 0u64);
    let mut open: Vec<String> = Vec::new();
    loop {
        let at = reader.buffer_position();
        match reader.read_event().map_err(|error| format!("it is not XML (byte {at}): {error}"))? {
            Event::Start(element) => {
                let name = element.local_name().as_ref().to_owned();
                begin(&name, &open, at)?;
                open.push(name.clone());
                if name == "testcase" {
                    (case, cases) = (Some(Case::Passed), cases + 1);
                } else {
                    judge(&name, &mut case);
                }
            }
            Event::Empty(element) => {
                let name = element.local_name().as_ref().to_owned();
                begin(&name, &open, at)?;
                if name == "testcase" {
                    cases += 1;
                    count(&mut counts, Case::Passed);
                } else {
                    judge(&name, &mut case);
                }
            }
            Event::End(_) => {
                let ended = open.pop();
                if ended.as_deref() == Some("testcase") {
                    count(&mut counts, case.take().unwrap_or(Case::Passed));
                }
            }
            Event::DocType(_) => return Err("it has a document type declaration, which is not read".to_owned()),
            Event::Eof => break,
            _ => {}
        }
    }
    if !open.is_empty() {
        return Err("it ends in the middle".to_owned());
    }
    if cases == 0 { Err("it has no testcase".to_owned()) } else { Ok(counts) }
}

fn begin(name: &str, open: &[String], at: u64) -> Result<(), String> {
    if open.len() >= DEPTH_MAX {
        return Err(format!("elements stand deeper than {DEPTH_MAX} (byte {at})"));
    }
    if open.is_empty() && name != "testsuites" && name != "testsuite" {
        return Err(format!("its first element is {name:?} and not testsuites or testsuite"));
    }
    if name == "testcase" && open.iter().any(|outer| outer == "testcase") {
        return Err(format!("a testcase stands in a testcase (byte {at})"));
    }
    Ok(())
}

fn judge(name: &str, case: &mut Option<Case>) {
    let Some(case) = case else { return };
    match name {
        "failure" | "error" => *case = Case::Failed,
        "skipped" if *case == Case::Passed => *case = Case::Skipped,
        _ => {}
    }
}

/// Each result has `success`; errors are results without it.
fn promptfoo(file: &Value) -> Result<ResultCounts, String> {
    let results = file.pointer("/results/results").or_else(|| file.get("results"));
    let results = results.and_then(Value::as_array);
    let results = results.ok_or("it has no list results.results; write it with `promptfoo eval --output FILE.json`")?;
    let mut counts = NONE;
    for (at, result) in results.iter().enumerate() {
        let success = result.get("success").and_then(Value::as_bool);
        let success = success.ok_or_else(|| format!("result {at} does not say whether it was a success"))?;
        count(&mut counts, if success { Case::Passed } else { Case::Failed });
    }
    if results.is_empty() { Err("it has no results".to_owned()) } else { Ok(counts) }
}

/// A sample passed when every score of it is `C`, true or 1.
fn inspect_ai(file: &Value) -> Result<ResultCounts, String> {
    let samples = file.get("samples").and_then(Value::as_array);
    let samples = samples.ok_or("it has no samples; write it with `inspect log dump LOG`")?;
    if file.get("eval").is_none() {
        return Err("it has no eval, so it is no log of inspect-ai".to_owned());
    }
    let mut counts = NONE;
    for sample in samples {
        let scores: Vec<&Value> =
            sample.get("scores").and_then(Value::as_object).into_iter().flat_map(|scores| scores.values()).collect();
        let broken = sample.get("error").is_some_and(|error| !error.is_null());
        let right = |score: &&Value| match score.get("value") {
            Some(Value::String(letter)) => letter == "C",
            Some(Value::Bool(right)) => *right,
            Some(Value::Number(number)) => number.as_f64() == Some(1.0),
            _ => false,
        };
        let case = match scores.as_slice() {
            _ if broken => Case::Failed,
            [] => Case::Skipped,
            scores if scores.iter().all(right) => Case::Passed,
            _ => Case::Failed,
        };
        count(&mut counts, case);
    }
    if samples.is_empty() { Err("it has no samples".to_owned()) } else { Ok(counts) }
}

/// OTLP JSON, one object or one per line. Spans with a `gen_ai.` attribute are model calls.
fn otel(bytes: &[u8]) -> Result<ResultCounts, String> {
    let mut counts = NONE;
    let mut spans = 0u64;
    for (at, object) in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().enumerate() {
        let object = object.map_err(|error| format!("it is not JSON: {error}"))?;
        let resources = object.get("resourceSpans").and_then(Value::as_array);
        let resources = resources.ok_or_else(|| format!("object {at} has no resourceSpans"))?;
        let scopes = resources.iter().filter_map(|resource| resource.get("scopeSpans")?.as_array()).flatten();
        for span in scopes.filter_map(|scope| scope.get("spans")?.as_array()).flatten() {
            spans += 1;
            let key =
                |attribute: &Value| attribute.get("key").and_then(Value::as_str).map(|key| key.starts_with("gen_ai."));
            let attributes = span.get("attributes").and_then(Value::as_array);
            let is_call = attributes.is_some_and(|all| all.iter().filter_map(key).any(|is_ours| is_ours));
            let code = span.pointer("/status/code");
            let failed =
                code.is_some_and(|code| code.as_i64() == Some(2) || code.as_str() == Some("STATUS_CODE_ERROR"));
            let case = match (is_call, failed) {
                (false, _) => Case::Skipped,
                (true, true) => Case::Failed,
                (true, false) => Case::Passed,
            };
            count(&mut counts, case);
        }
    }
    if spans == 0 { Err("it has no spans".to_owned()) } else { Ok(counts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ingest_type: IngestType, text: &str) -> Result<(u64, u64, u64), String> {
        read(ingest_type, text.as_bytes()).map(|counts| (counts.passed, counts.failed, counts.skipped))
    }

    #[test]
    fn junit_is_counted_case_by_case() {
        let text = r#"<?xml version="1.0"?><testsuites tests="99"><testsuite name="a" failures="0">
            <testcase name="one"/><testcase name="two"><failure message="no">x &lt; y</failure></testcase>
            <testcase name="three"><skipped/></testcase><testcase><error/><skipped/></testcase>
            <testcase><system-out>fine</system-out></testcase></testsuite></testsuites>"#;
        assert_eq!(of(IngestType::Junit, text), Ok((2, 2, 1)));
        assert_eq!(of(IngestType::Junit, "<testsuite><testcase/></testsuite>"), Ok((1, 0, 0)));
    }

    #[test]
    fn junit_that_is_none_is_refused() {
        for (what, text) in [
            ("no case", "<testsuites/>"),
            ("another document", "<html><testcase/></html>"),
            ("cut off", "<testsuite><testcase>"),
            ("mismatched", "<testsuite><testcase></testsuite>"),
            (
                "a declaration",
                "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><testsuite><testcase/></testsuite>",
            ),
            ("a case in a case", "<testsuite><testcase><testcase/></testcase></testsuite>"),
            ("no XML", "{}"),
        ] {
            assert!(of(IngestType::Junit, text).is_err(), "{what}");
        }
        let deep = format!("<testsuite>{}", "<a>".repeat(100_000));
        assert!(of(IngestType::Junit, &deep).expect_err("too deep").contains("deeper"));
    }

    #[test]
    fn promptfoo_results() {
        let text = r#"{"evalId":"e","results":{"version":3,"stats":{"successes":7},"results":[{"success":true},{"success":false}]}}"#;
        assert_eq!(of(IngestType::Promptfoo, text), Ok((1, 1, 0)));
        assert_eq!(of(IngestType::Promptfoo, r#"{"results":[{"success":true}]}"#), Ok((1, 0, 0)));
        for text in ["{}", "[]", r#"{"results":{"results":[]}}"#, r#"{"results":[{"ok":true}]}"#, "x"] {
            assert!(of(IngestType::Promptfoo, text).is_err(), "{text}");
        }
    }

    #[test]
    fn inspect_ai_samples() {
        let text = r#"{"version":2,"status":"success","eval":{"task":"t"},"samples":[
            {"scores":{"a":{"value":"C"}}},{"scores":{"a":{"value":"I"}}},{"scores":{"a":{"value":1},"b":{"value":0.5}}},
            {"scores":{"a":{"value":true}}},{"scores":{}},{"error":{"message":"x"},"scores":{"a":{"value":"C"}}}]}"#;
        assert_eq!(of(IngestType::InspectAi, text), Ok((2, 3, 1)));
        for text in ["{}", r#"{"samples":[{}]}"#, r#"{"eval":{},"samples":[]}"#] {
            assert!(of(IngestType::InspectAi, text).is_err(), "{text}");
        }
    }

    #[test]
    fn otel_spans_of_models() {
        let span = |key: &str, code: &str| {
            format!(
                r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"key":"{key}"}}],"status":{{"code":{code}}}}}]}}]}}]}}"#
            )
        };
        let lines = [
            span("gen_ai.system", "0"),
            span("gen_ai.request.model", "2"),
            span("http.route", "2"),
            span("gen_ai.system", "\"STATUS_CODE_ERROR\""),
        ];
        assert_eq!(of(IngestType::OtelTrace, &lines.join("\n")), Ok((1, 2, 1)));
        for text in ["{}", r#"{"resourceSpans":[]}"#, "{\"resourceSpans\":[]} x"] {
            assert!(of(IngestType::OtelTrace, text).is_err(), "{text}");
        }
    }
}
