//! The line editor on a thread of its own: it blocks on the terminal.

use super::helper::GrammarHelper;
use super::history;
use crate::output::{Style, to_stderr};
use rustyline::config::{BellStyle, ColorMode, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Cmd, CompletionType, ExternalPrinter, KeyEvent};
use std::sync::mpsc as std_mpsc;
use tokio::sync::mpsc;

/// Lines of history that are kept.
const HISTORY_LINES: usize = 10_000;
/// News that waits for the terminal; what does not fit is not worth showing any more.
const NEWS_WAITING: usize = 16;

/// What the user did.
pub enum Input {
    /// Entered a line.
    Line(String),
    /// Gave up a line that was begun, with ctrl-c.
    Discarded,
    /// ctrl-d, or ctrl-c on an empty line.
    End,
    /// The terminal is gone.
    Broken(String),
}

pub struct Editor {
    prompts: std_mpsc::Sender<&'static str>,
    inputs: mpsc::Receiver<Input>,
    printer: Printer,
}

impl Editor {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Why it cannot be taken, for people.
    pub fn start(style: Style) -> Result<Editor, String> {
        let mut line_editor = line_editor(style).map_err(|error| error.to_string())?;
        // A dumb terminal has no place above the line.
        let printer = Printer::start(line_editor.create_external_printer().ok());
        let (prompts, prompt_queue) = std_mpsc::channel();
        let (input_queue, inputs) = mpsc::channel(1);
        std::thread::spawn(move || {
            let history = history::file();
            if let Some(history) = &history {
                // There is none before the first time.
                let _ = line_editor.load_history(history);
            }
            while let Ok(prompt) = prompt_queue.recv() {
                let input = read_line(&mut line_editor, prompt);
                if let (Input::Line(_), Some(history)) = (&input, &history) {
                    // A history that cannot be kept is no reason to stop.
                    let _ = line_editor.append_history(history);
                }
                if input_queue.blocking_send(input).is_err() {
                    return;
                }
            }
        });
        Ok(Editor {
            prompts,
            inputs,
            printer,
        })
    }

    /// Lets the user edit one line.
    pub async fn next_line(&mut self, prompt: &'static str) -> Input {
        let gone = || Input::Broken("the line editor is gone".to_owned());
        if self.prompts.send(prompt).is_err() {
            return gone();
        }
        self.inputs.recv().await.unwrap_or_else(gone)
    }

    /// A printer of lines above the one that is edited.
    pub fn printer(&self) -> Printer {
        self.printer.clone()
    }
}

type LineEditor = rustyline::Editor<GrammarHelper, FileHistory>;

fn line_editor(style: Style) -> rustyline::Result<LineEditor> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .history_ignore_dups(true)?
        // As in shells: a line that begins with a space leaves no trace.
        .history_ignore_space(true)
        .auto_add_history(true)
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .bell_style(BellStyle::None)
        .color_mode(if style.color {
            ColorMode::Enabled
        } else {
            ColorMode::Disabled
        })
        .build();
    let mut editor = LineEditor::with_config(config)?;
    editor.set_helper(Some(GrammarHelper::new(style)));
    // A ctrl-d that is typed while a command runs, and the terminal is not the editor's, arrives as this.
    editor.bind_sequence(KeyEvent::ctrl('@'), Cmd::EndOfFile);
    Ok(editor)
}

fn read_line(editor: &mut LineEditor, prompt: &str) -> Input {
    if let Some(helper) = editor.helper() {
        helper.start_line();
    }
    match editor.readline(prompt) {
        Ok(line) => Input::Line(line),
        Err(ReadlineError::Eof) => Input::End,
        Err(ReadlineError::Interrupted) => match editor.helper() {
            Some(helper) if !helper.line_is_empty() => Input::Discarded,
            _ => Input::End,
        },
        Err(error) => Input::Broken(format!("cannot read the terminal: {error}")),
    }
}

/// Prints lines above the one that is edited.
///
/// The editor's own printer blocks while the editor is busy, and whoever prints news must not:
/// hence a thread between them.
#[derive(Clone)]
pub struct Printer(std_mpsc::SyncSender<String>);

impl Printer {
    fn start(external: Option<impl ExternalPrinter + Send + 'static>) -> Printer {
        let (lines, queue) = std_mpsc::sync_channel::<String>(NEWS_WAITING);
        std::thread::spawn(move || {
            let mut external = external;
            while let Ok(line) = queue.recv() {
                let printed = match &mut external {
                    Some(external) => external.print(line + "\n").is_ok(),
                    None => {
                        to_stderr(&line);
                        true
                    }
                };
                if !printed {
                    return;
                }
            }
        });
        Printer(lines)
    }

    pub fn print(&self, line: String) {
        // News that finds no room is old by the time there is some.
        let _ = self.0.try_send(line);
    }
}
