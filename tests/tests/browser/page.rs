//! The page in headless Chromium, as a person sees and uses it: found by its `data-testid`s.

use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use kvservice_tests::process::{Process, lasting_address};
use kvservice_tests::rounds::Round;
use kvservice_tests::search;
use serde_json::{Value as Json, json};
use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The built page.
///
/// # Panics
/// Where it was not built; the message says how to.
pub fn web_dir() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = match env::var_os("KVSERVICE_WEB_DIR") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => ["target/release/web", "target/debug/web", "web-client/dist"]
            .map(|place| here.join("..").join(place))
            .to_vec(),
    };
    let built = places
        .iter()
        .find(|place| place.join("index.html").is_file());
    let Some(built) = built else {
        panic!("the page is in none of {places:?}: build it with `cargo xtask web`");
    };
    built
        .canonicalize()
        .expect("the directory was just looked into")
}

fn tool(variable: &str, usual: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: install Debian's chromium and chromium-driver, or say with {variable} where it is",
        path.display()
    );
    path
}

/// The page, open.
pub struct Page {
    browser: Client,
    /// Ends with this, and the browser with it.
    _driver: Process,
    dir: PathBuf,
}

impl Page {
    /// Opens it in a browser of its own.
    pub async fn open(round: &Round, url: &str) -> Page {
        let port = lasting_address().port();
        let driver = tool("CHROMEDRIVER", "/usr/bin/chromedriver");
        let driver = Process::start(
            "chromedriver",
            &driver,
            &[format!("--port={port}")],
            round.dir(),
        );
        let chrome = tool("CHROME", "/usr/bin/chromium");
        let profile = format!("--user-data-dir={}", round.dir().join("browser").display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1440,1000",
            // The browser ends with its driver, even where that is killed.
            "--remote-debugging-pipe",
            &profile,
        ];
        let options = json!({"binary": chrome, "args": args});
        let capabilities = [
            ("browserName".to_owned(), json!("chrome")),
            ("goog:chromeOptions".to_owned(), options),
        ];
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.into_iter().collect());
        let address = format!("http://127.0.0.1:{port}");
        let mut why = String::new();
        let connect = async || match builder.connect(&address).await {
            Ok(browser) => Some(browser),
            Err(error) => {
                why = error.to_string();
                None
            }
        };
        let browser = search(connect).await;
        let browser =
            browser.unwrap_or_else(|| panic!("no browser: {why}; {}", driver.last_words()));
        let page = Page {
            browser,
            _driver: driver,
            dir: round.dir().to_owned(),
        };
        must("the page", page.browser.goto(url).await);
        page
    }

    /// Looks again until the script's value satisfies `is_so`; on failure there is a picture of the page.
    async fn until(&self, what: &str, script: &str, is_so: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        let look = async || {
            last = must(what, self.browser.execute(script, vec![]).await);
            is_so(&last).then(|| last.clone())
        };
        if let Some(found) = search(look).await {
            return found;
        }
        let picture = self.dir.join("page.png");
        if let Ok(png) = self.browser.screenshot().await {
            std::fs::write(&picture, png).expect("the round's directory can be written");
        }
        panic!(
            "waited in vain for {what}, seen in {}: {last}",
            picture.display()
        );
    }

    async fn until_state(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let script = "return document.querySelector('[data-testid=connection]')?.dataset.state";
        self.until(what, script, |state| state.as_str().is_some_and(&is_so))
            .await;
    }

    /// The top bar says that the connection is live.
    pub async fn until_connected(&self) {
        self.until_state("a live connection", |state| state == "live")
            .await;
    }

    /// The top bar says that it is not.
    pub async fn until_disconnected(&self) {
        self.until_state("the loss of the connection", |state| state != "live")
            .await;
    }

    /// The picture shows so many members; their names, in its order.
    pub async fn until_members(&self, count: usize) -> Vec<String> {
        let script = "return [...document.querySelectorAll('[data-testid=chain-card]')]
            .filter(card => ['head', 'middle', 'tail', 'single'].includes(card.dataset.role))
            .map(card => card.dataset.node)";
        let names = self
            .until(&format!("{count} members"), script, |names| {
                names.as_array().is_some_and(|names| names.len() == count)
            })
            .await;
        let names = names.as_array().into_iter().flatten();
        names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    }

    /// The strip of events holds one of this kind.
    pub async fn until_event(&self, kind: &str) {
        let script = "return [...document.querySelectorAll('[data-testid=event]')]
            .map(event => event.dataset.kind)";
        self.until(&format!("the event {kind:?}"), script, |kinds| {
            kinds
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|k| k == kind))
        })
        .await;
    }

    /// The keys' list shows this key with this value.
    pub async fn until_key(&self, key: &str, value: &str) {
        let script = format!(
            "return document.querySelector('[data-testid=key-row][data-key=\"{key}\"] td')?.textContent"
        );
        self.until(&format!("{key} with {value}"), &script, |shown| {
            shown == value
        })
        .await;
    }

    /// Types a command at the prompt, and waits until its answer is printed last.
    pub async fn prompt(&self, command: &str, answer: &str) {
        let input = self.element("prompt-input").await;
        must("typing", input.send_keys(command).await);
        must("typing", input.send_keys(&Key::Enter.to_string()).await);
        let script = "return [...document.querySelectorAll('[data-testid=prompt-entry] .output')]
            .at(-1)?.textContent";
        self.until(&format!("{answer:?}"), script, |shown| shown == answer)
            .await;
    }

    /// Adds a key with the keys' own editor.
    pub async fn add_key(&self, key: &str, value: &str) {
        must("a click", self.element("new-key").await.click().await);
        must(
            "typing",
            self.element("key-input").await.send_keys(key).await,
        );
        must(
            "typing",
            self.element("value-input").await.send_keys(value).await,
        );
        must("a click", self.element("save").await.click().await);
    }

    /// Waits for the element, as it may be drawn only now.
    async fn element(&self, id: &str) -> fantoccini::elements::Element {
        let css = format!("[data-testid={id}]");
        let wait = self.browser.wait().at_most(kvservice_tests::PATIENCE);
        must(id, wait.for_element(Locator::Css(&css)).await)
    }

    /// Nothing was asked of another host.
    pub async fn assert_own_host_only(&self) {
        let script = "return performance.getEntriesByType('resource')
            .map(resource => resource.name)
            .filter(name => new URL(name).host !== location.host)";
        let others = must("the requests", self.browser.execute(script, vec![]).await);
        assert_eq!(others, json!([]), "the page asked other hosts");
    }

    /// Closes the browser.
    pub async fn close(self) {
        must("the end", self.browser.close().await);
    }
}

fn must<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
