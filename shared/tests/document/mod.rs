//! The examples in `docs/client-protocol.md`: the lines of its fenced blocks that are marked
//! `json request`, `json response OP` or `json dump`.

/// One example: a whole frame.
pub enum Example {
    /// What a client sends.
    Request {
        /// The frame.
        frame: &'static str,
    },
    /// What a server sends.
    Response {
        /// What was asked; `error` for errors.
        #[allow(dead_code, reason = "each test binary reads what it needs")]
        to: &'static str,
        /// The frame.
        frame: &'static str,
    },
    /// A line of a dump.
    Dump {
        /// The line.
        #[allow(dead_code, reason = "each test binary reads what it needs")]
        line: &'static str,
    },
}

/// Every example of the reference.
pub fn examples() -> Vec<Example> {
    let text = include_str!("../../../docs/client-protocol.md");
    let mut examples = Vec::new();
    let mut block = None;
    for line in text.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(marks)) => block = Some(marks),
            (Some(_), Some(_)) => block = None,
            (Some(marks), None) => match *marks.split_whitespace().collect::<Vec<_>>() {
                ["json", "request"] => examples.push(Example::Request { frame: line }),
                ["json", "response", to] => examples.push(Example::Response { to, frame: line }),
                ["json", "dump"] => examples.push(Example::Dump { line }),
                _ => {}
            },
            (None, None) => {}
        }
    }
    examples
}
