//! Scratch.
#[path = "../tests/common/mod.rs"]
mod common;
fn main() {
    let server = common::Server::start([]);
    println!("{}", server.address);
    loop {
        std::thread::park();
    }
}
