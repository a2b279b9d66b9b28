//! The browser client's entry point. `trunk` builds this binary for wasm32 and `boot.js` starts it.

#[cfg(target_arch = "wasm32")]
fn main() {
    kvservice_web_client::app::mount();
}

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    eprintln!("kvservice-web runs in a browser: build it with `trunk build` in web-client/");
    std::process::exit(2);
}
