//! What a browser may do with our page (its content security policy), and the page that stands in until the
//! real one is built.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;

/// The policy for a page of ours: its own files, its own server, wasm, and the very scripts and styles that
/// stand in its HTML; nothing from anywhere else, and no frame around it.
pub(super) fn policy(html: &str) -> String {
    let mut policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'".to_string();
    push_hashes(&mut policy, html, "script");
    policy.push_str("; style-src 'self'");
    push_hashes(&mut policy, html, "style");
    policy.push_str(
        "; img-src 'self' data:; font-src 'self'; connect-src 'self'; \
         manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    policy
}

fn push_hashes(policy: &mut String, html: &str, element: &str) {
    for body in inline_bodies(html, element) {
        let hash = BASE64_STANDARD.encode(Sha256::digest(body));
        // Writing to a string cannot fail.
        let _ = write!(policy, " 'sha256-{hash}'");
    }
}

/// The contents of every `element` that has any of its own. Reads HTML as far as needed to find them in a page
/// that our own build made; in another's, a hash too many allows nothing that is not in the page.
fn inline_bodies<'a>(html: &'a str, element: &str) -> Vec<&'a str> {
    let lower = html.to_ascii_lowercase();
    let (open, close) = (format!("<{element}"), format!("</{element}"));
    let mut bodies = Vec::new();
    let mut at = 0;
    while let Some(start) = lower[at..].find(&open) {
        let name_end = at + start + open.len();
        let Some(length) = tag_length(&lower[name_end..]) else {
            break;
        };
        let body_start = name_end + length;
        // "<scripty" is another element.
        let is_it = lower[name_end..].starts_with(|c: char| c.is_whitespace() || c == '>');
        let Some(body_length) = lower[body_start..].find(&close) else {
            break;
        };
        let body = &html[body_start..body_start + body_length];
        if is_it && !body.is_empty() {
            bodies.push(body);
        }
        at = if is_it {
            body_start + body_length + close.len()
        } else {
            name_end
        };
    }
    bodies
}

/// Bytes up to and with the `>` that ends a tag; one in quotes does not.
fn tag_length(attributes: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in attributes.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '>' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The page that stands in. It reloads by itself, so it is gone as soon as the real one is there.
pub(super) fn placeholder(looked_in: &Path) -> String {
    let looked_in = escape(&looked_in.display().to_string());
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="3">
<title>kvservice</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto; padding: 0 1rem; }}
code {{ font: .95em ui-monospace, monospace; }}
</style>
</head>
<body>
<h1>kvservice is running</h1>
<p>Its page is not built yet. In the checkout, <code>cargo xtask web</code> builds it; this page then
reloads by itself.</p>
<p>Looked for <code>index.html</code> in <code>{looked_in}</code>; <code>--web-dir</code> names another place.</p>
<p>The terminal client and the WebSocket at <code>/v1/ws</code> work without it.</p>
</body>
</html>
"#
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_scripts_are_found_and_others_are_not() {
        let html = "<!doctype html><SCRIPT type=\"module\" data-x='a>b'>let a = '<b>';</SCRIPT>\
            <script src=\"/app.js\"></script><scripty>no</scripty><script>\n2 </script >";
        assert_eq!(inline_bodies(html, "script"), ["let a = '<b>';", "\n2 "]);
        assert_eq!(inline_bodies("<script>never closed", "script"), [""; 0]);
        assert_eq!(inline_bodies("<script", "script"), [""; 0]);
    }

    #[test]
    fn the_policy_names_each_by_its_hash() {
        // `printf 'alert(1)' | openssl dgst -sha256 -binary | base64`
        let policy = policy("<script>alert(1)</script><style>b{}</style>");
        let script = "script-src 'self' 'wasm-unsafe-eval' 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=';";
        assert!(policy.contains(script), "{policy}");
        assert!(policy.contains("style-src 'self' 'sha256-"), "{policy}");
        assert!(
            !policy.contains("script-src 'self' 'unsafe-inline'"),
            "{policy}"
        );
    }

    #[test]
    fn the_placeholder_shows_paths_as_text() {
        assert!(placeholder(Path::new("/a/<b>&c")).contains("/a/&lt;b&gt;&amp;c"));
    }
}
