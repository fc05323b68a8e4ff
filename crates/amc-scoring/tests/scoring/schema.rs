//! `docs/formats/report.schema.json` describes the reports that are made, and refuses others.
//!
//! The checker here knows the keywords that the schema uses and refuses any other, so that none is
//! passed over.

use serde_json::Value;

use crate::showcase::{exemplary, hostile, invalid, valid};
use crate::world::shipped;

const SCHEMA: &str = include_str!("../../../../docs/formats/report.schema.json");
const DOCUMENT: &str = include_str!("../../../../docs/formats/report.md");

/// Whether the text fits a pattern of characters and classes, each once, `+`, `{n}` or `{n,m}` times,
/// none of which needs a step back.
fn fits(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).expect("a whole pattern");
    let mut left = text.chars().peekable();
    while !rest.is_empty() {
        let (class, after) = match rest.strip_prefix('[') {
            Some(class) => class.split_once(']').expect("a class ends"),
            None => rest.split_at(1),
        };
        let (least, most, after) = match after.strip_prefix('{').and_then(|count| count.split_once('}')) {
            Some((count, after)) => {
                let (least, most) = count.split_once(',').unwrap_or((count, count));
                (least.parse().expect("a number"), most.parse().expect("a number"), after)
            }
            None => after.strip_prefix('+').map_or((1, 1, after), |after| (1, usize::MAX, after)),
        };
        let mut taken = 0;
        while taken < most && left.next_if(|character| is_in(class, *character)).is_some() {
            taken += 1;
        }
        if taken < least {
            return false;
        }
        rest = after;
    }
    left.next().is_none()
}

/// Whether a class such as `a-z0-9_-` has the character.
fn is_in(class: &str, character: char) -> bool {
    let members: Vec<char> = class.chars().collect();
    let mut at = 0;
    while at < members.len() {
        let is_range = members.get(at + 1) == Some(&'-') && at + 2 < members.len();
        let (from, to) = if is_range { (members[at], members[at + 2]) } else { (members[at], members[at]) };
        if (from..=to).contains(&character) {
            return true;
        }
        at += if is_range { 3 } else { 1 };
    }
    false
}

#[test]
fn patterns_fit_what_they_say() {
    for (pattern, good, bad) in [
        ("^[0-9a-f]{4}$", "00af", "00ag"),
        ("^[a-z0-9][a-z0-9_-]{0,3}$", "a-_9", "-a"),
        ("^run-[0-9]+$", "run-12", "run-"),
        ("^[a-z]{2}$", "ab", "abc"),
    ] {
        assert!(fits(pattern, good), "{pattern} {good}");
        assert!(!fits(pattern, bad), "{pattern} {bad}");
    }
}

/// The first thing at which a value is not what the schema says.
fn mismatch(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let rules = schema.as_object().expect("a schema is an object");
    rules.iter().find_map(|(keyword, rule)| {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a local reference");
                return mismatch(root, &root["$defs"][name], value, at);
            }
            "anyOf" => {
                let mut any = rule.as_array().expect("a list").iter();
                any.any(|one| mismatch(root, one, value, at).is_none())
            }
            "type" => match rule.as_str() {
                Some("object") => value.is_object(),
                Some("array") => value.is_array(),
                Some("string") => value.is_string(),
                Some("integer") => value.is_u64(),
                Some("boolean") => value.is_boolean(),
                Some("null") => value.is_null(),
                other => panic!("the checker knows no type {other:?}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_u64() >= rule.as_u64(),
            "maximum" => value.as_u64() <= rule.as_u64(),
            "minItems" => value.as_array().map(|list| list.len() as u64) >= rule.as_u64(),
            "maxItems" => value.as_array().map(|list| list.len() as u64) <= rule.as_u64(),
            "pattern" => fits(rule.as_str().expect("text"), value.as_str().unwrap_or_default()),
            "required" => {
                let missing = rule
                    .as_array()
                    .expect("a list")
                    .iter()
                    .find(|key| value.get(key.as_str().expect("text")).is_none());
                return missing.map(|key| format!("{at} lacks {key}"));
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().expect("closed objects name their properties");
                let unknown = value.as_object().into_iter().flatten().find(|(key, _)| !known.contains_key(*key));
                return unknown.map(|(key, _)| format!("{at} has an unknown {key}"));
            }
            "properties" => {
                let mut named = rule.as_object().expect("an object").iter();
                return named.find_map(|(key, rule)| {
                    value.get(key).and_then(|part| mismatch(root, rule, part, &format!("{at}.{key}")))
                });
            }
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                return items.find_map(|item| mismatch(root, rule, item, &format!("{at}[]")));
            }
            other => panic!("the checker knows no keyword {other}"),
        };
        (!holds).then(|| format!("{at}: {keyword} {rule} does not hold for {value}"))
    })
}

fn check(value: &Value) -> Option<String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    mismatch(&schema, &schema, value, "report")
}

#[test]
fn reports_are_what_the_schema_says() {
    for report in [invalid(), valid(), hostile(), exemplary(&shipped())] {
        let value: Value = serde_json::from_slice(&report.to_bytes()).unwrap();
        assert_eq!(check(&value), None);
    }
}

#[test]
fn what_is_no_report_is_refused() {
    let good: Value = serde_json::from_slice(&valid().to_bytes()).unwrap();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 8] = [
        ("pattern", |report| report["run_id"] = "run-1".into()),
        ("unknown", |report| report["more"] = Value::Null),
        ("lacks", |report| drop(report.as_object_mut().unwrap().remove("epochs"))),
        ("status", |report| report["status"] = "FINE".into()),
        ("maximum", |report| report["questions"][0]["final"] = 6.into()),
        ("1.5", |report| report["overall_bp"] = Value::from(1.5)),
        ("minItems", |report| drop(report["layers"].as_array_mut().unwrap().pop())),
        ("anyOf", |report| report["questions"][0]["claimed"] = "3".into()),
    ];
    for (word, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let found = check(&bad).unwrap_or_else(|| panic!("{word} is not refused"));
        assert!(found.contains(word), "{word}: {found}");
    }
}

#[test]
fn the_page_about_reports_names_every_key_and_every_cap() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for key in schema["properties"].as_object().unwrap().keys() {
        assert!(DOCUMENT.contains(&format!("`{key}`")), "{key}");
    }
    for report in [invalid(), valid(), hostile()] {
        for cap in report.questions.iter().flat_map(|question| &question.caps) {
            let rule = cap.rule.split(':').next().unwrap();
            assert!(DOCUMENT.contains(&format!("`{rule}")), "{rule}");
        }
    }
}
