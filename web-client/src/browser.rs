//! What the page needs of the browser besides the socket: clock, randomness, theme, focus, visibility.
//! Each returns something harmless where the browser refuses (a private window without storage, say).

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{
    Document, Element, FocusOptions, HtmlElement, HtmlTextAreaElement, ScrollIntoViewOptions,
    ScrollLogicalPosition, Window, js_sys,
};

/// Where the chosen theme is kept. `boot.js` reads it before the first paint.
const THEME_KEY: &str = "kvservice.theme";

/// The window. A page has one; a worker would not.
pub fn window() -> Window {
    web_sys::window().expect("the client runs in a page")
}

/// The document.
pub fn document() -> Document {
    window().document().expect("a page has a document")
}

/// Milliseconds since the page was opened. Never goes back.
pub fn now_ms() -> u64 {
    window().performance().map_or(0, |p| p.now() as u64)
}

/// What to add to UTC for the reader's time, in minutes.
pub fn utc_offset_min() -> i32 {
    -(js_sys::Date::new_0().get_timezone_offset() as i32)
}

/// Sixteen random bytes, fit to name a session.
pub fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let crypto = window()
        .crypto()
        .expect("every browser with WebAssembly has crypto");
    crypto
        .get_random_values_with_u8_array(&mut bytes)
        .expect("it gives up to 65,536 bytes at a time");
    bytes
}

/// The address of the client port, from the page's own: `v1/ws` beside it.
pub fn socket_url() -> String {
    let location = window().location();
    let here = location.href().unwrap_or_default();
    match web_sys::Url::new_with_base("v1/ws", &here) {
        Ok(url) => {
            let secure = url.protocol() == "https:";
            url.set_protocol(if secure { "wss:" } else { "ws:" });
            url.set_search("");
            url.set_hash("");
            url.href()
        }
        Err(_) => "v1/ws".to_owned(),
    }
}

/// The host that served the page.
pub fn host() -> String {
    window().location().host().unwrap_or_default()
}

/// Whether anybody can see the page.
pub fn is_visible() -> bool {
    document().visibility_state() == web_sys::VisibilityState::Visible
}

/// Calls back when the page comes into sight or goes.
pub fn on_visibility(callback: impl Fn(bool) + 'static) {
    let closure = Closure::<dyn Fn()>::new(move || callback(is_visible()));
    let target = closure.as_ref().unchecked_ref();
    // Without it the page polls at its usual pace in the background too.
    let _ = document().add_event_listener_with_callback("visibilitychange", target);
    // For as long as the page lives.
    closure.forget();
}

/// Light or dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// The reader's choice, or else the system's.
    pub fn current() -> Theme {
        let stored = window().local_storage().ok().flatten();
        let stored = stored.and_then(|s| s.get_item(THEME_KEY).ok().flatten());
        match stored.as_deref() {
            Some("light") => Theme::Light,
            Some("dark") => Theme::Dark,
            _ => {
                let query = window()
                    .match_media("(prefers-color-scheme: dark)")
                    .ok()
                    .flatten();
                if query.is_some_and(|q| q.matches()) {
                    Theme::Dark
                } else {
                    Theme::Light
                }
            }
        }
    }

    /// The other one.
    pub fn other(self) -> Theme {
        match self {
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::Light,
        }
    }

    /// Shows this theme, and remembers it.
    pub fn choose(self) {
        let name = match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        };
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute("data-theme", name);
        }
        if let Some(storage) = window().local_storage().ok().flatten() {
            let _ = storage.set_item(THEME_KEY, name);
        }
    }
}

/// Puts the keyboard's focus on the first element that the selector finds, and shows what it belongs to.
pub fn focus(selector: &str) {
    let show = |element: &Element| {
        let options = ScrollIntoViewOptions::new();
        options.set_block(ScrollLogicalPosition::Nearest);
        element.scroll_into_view_with_scroll_into_view_options(&options);
    };
    let find = |selector: &str| document().query_selector(selector).ok().flatten();
    let Some(element) = find(selector) else {
        return;
    };
    if let Some(area) = element.dyn_ref::<HtmlTextAreaElement>() {
        // At its beginning: a browser would go to the end of a long value.
        let _ = area.set_selection_range(0, 0);
    }
    if let Some(element) = element.dyn_ref::<HtmlElement>() {
        let options = FocusOptions::new();
        options.set_prevent_scroll(true);
        let _ = element.focus_with_options(&options);
    }
    let form = element.closest("form").ok().flatten();
    show(form.as_ref().unwrap_or(&element));
    // The list gave room to the editor: the row that is open stays in sight.
    if let Some(row) = find(".list tr.open") {
        show(&row);
    }
}

/// One timer at a time, set anew as often as needed.
pub struct Timer {
    closure: Closure<dyn Fn()>,
    set: Option<(u64, i32)>,
}

impl Timer {
    /// A timer that calls back.
    pub fn new(callback: impl Fn() + 'static) -> Timer {
        Timer {
            closure: Closure::new(callback),
            set: None,
        }
    }

    /// Calls back at this time, and no more at any earlier set.
    pub fn set(&mut self, at_ms: Option<u64>, now_ms: u64) {
        if self.set.map(|(at, _)| at) == at_ms {
            return;
        }
        if let Some((_, handle)) = self.set.take() {
            window().clear_timeout_with_handle(handle);
        }
        if let Some(at) = at_ms {
            // One more, for timers round down. A day at most: the browser's own limit is 24 of them.
            let delay = at.saturating_sub(now_ms).min(86_400_000) as i32 + 1;
            let target = self.closure.as_ref().unchecked_ref();
            let handle =
                window().set_timeout_with_callback_and_timeout_and_arguments_0(target, delay);
            self.set = handle.ok().map(|handle| (at, handle));
        }
    }

    /// It called back.
    pub fn fired(&mut self) {
        self.set = None;
    }
}
