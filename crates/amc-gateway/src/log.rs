//! What the gateway says on standard error: one JSON object a line, with ids and codes, never a body
//! and never a key.

use std::io::Write as _;

use serde_json::{Value, json};

/// Says that something is not as it should be.
pub(crate) fn warn(event: &str, fields: &Value) {
    write("warn", event, fields);
}

/// Says what happened.
pub(crate) fn info(event: &str, fields: &Value) {
    write("info", event, fields);
}

fn write(level: &str, event: &str, fields: &Value) {
    let mut line = json!({ "level": level, "event": event });
    if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object()) {
        line.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
