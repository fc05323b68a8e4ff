//! Text that stays text: escaping for HTML and Markdown, and `code` between backticks.
//!
//! Every value of a report goes through one of these; nothing else may be written into a page.

/// Escapes text for elements and quoted attributes; control characters become visible.
pub(super) fn esc(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other if is_disguise(other) => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// Escaped text in which what stands between backticks is code.
pub(super) fn prose(text: &str) -> String {
    let safe = esc(text);
    let Some(parts) = code_parts(&safe) else { return safe };
    let mut whole = String::with_capacity(safe.len());
    for (is_code, part) in parts {
        if is_code {
            whole.push_str("<code>");
            whole.push_str(part);
            whole.push_str("</code>");
        } else {
            whole.push_str(part);
        }
    }
    whole
}

/// Escapes text so that it is text in any place of a document of ours.
pub(super) fn md(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => safe.extend(['\\', character]),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            other if is_disguise(other) => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// Escaped Markdown in which what stands between backticks is code. Code with a character that
/// another place of the document could read as markup is escaped like the rest.
pub(super) fn md_prose(text: &str) -> String {
    match code_parts(text) {
        Some(parts) if parts.iter().all(|(is_code, part)| !is_code || is_plain_code(part)) => {
            parts.into_iter().map(|(is_code, part)| if is_code { format!("`{part}`") } else { md(part) }).collect()
        }
        _ => md(text),
    }
}

/// A name as code, or escaped where it holds what code cannot.
pub(super) fn md_code(text: &str) -> String {
    let plain = is_plain_code(text) && !text.contains('`') && !text.trim().is_empty();
    if plain { format!("`{text}`") } else { md(text) }
}

fn is_plain_code(part: &str) -> bool {
    !part.contains(['<', '>', '&', '|']) && !part.contains(is_disguise)
}

/// The text in turns outside and between backticks; `None` where they do not pair, or hold nothing.
fn code_parts(text: &str) -> Option<Vec<(bool, &str)>> {
    let parts: Vec<(bool, &str)> = text.split('`').enumerate().map(|(at, part)| (at % 2 == 1, part)).collect();
    (parts.len() % 2 == 1 && parts.iter().all(|(is_code, part)| !is_code || !part.trim().is_empty())).then_some(parts)
}

/// Characters that hide or reorder what stands around them.
fn is_disguise(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_marked_and_stays_escaped() {
        assert_eq!(prose("run `a <b>` now"), "run <code>a &lt;b&gt;</code> now");
        assert_eq!(prose("odd ` one"), "odd ` one");
        assert_eq!(prose("nothing `` here"), "nothing `` here");
        assert_eq!(md_prose("run `amc config sign a_b` now_"), r"run `amc config sign a_b` now\_");
        assert_eq!(md_prose("odd ` one"), r"odd \` one");
        assert_eq!(md_prose("run `a <b>` now"), r"run \`a &lt;b&gt;\` now");
        assert_eq!(md_code("config_untrusted"), "`config_untrusted`");
        assert_eq!(md_code("a`b|c"), r"a\`b\|c");
        assert_eq!(md_prose("a `|` b"), r"a \`\|\` b", "a table's cell ends where it should");
    }

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(esc("<script a='1'>\"&\u{7}"), "&lt;script a=&#39;1&#39;&gt;&quot;&amp;\u{fffd}");
        assert_eq!(md("a|b<script>&[x](y)`*_\n"), r"a\|b&lt;script&gt;&amp;\[x\](y)\`\*\_".to_owned() + "\u{fffd}");
    }

    #[test]
    fn characters_that_hide_or_reorder_are_shown() {
        for disguise in ['\u{202e}', '\u{200b}', '\u{2066}', '\u{feff}', '\u{85}'] {
            assert_eq!(esc(&format!("a{disguise}b")), "a\u{fffd}b");
            assert_eq!(md(&format!("a{disguise}b")), "a\u{fffd}b");
        }
    }
}
