//! The page in a real browser, against a real chain: what is set on the page is seen from the terminal and
//! the other way round; the head is killed, the picture changes, and the next write succeeds.
//!
//! Chromium is driven by chromedriver. `CHROMEDRIVER` and `CHROME` name them, else they are where Debian
//! puts them. `KVSERVICE_WEB_DIR` names the built page, else it is where `cargo xtask web` puts it.

#[path = "browser/page.rs"]
mod page;

use kvservice_tests::chain::{Chain, Setup};
use kvservice_tests::cli::kvservice;
use kvservice_tests::rounds::rounds;
use page::{Page, web_dir};

#[test]
fn the_page_and_the_terminal_see_each_other_and_a_failover() {
    rounds(async |round| {
        let web = web_dir();
        let setup = Setup {
            front_end_args: vec!["--web-dir".to_owned(), web.display().to_string()],
            ..Setup::default()
        };
        let mut chain = Chain::start(round, setup).await;
        let server = chain.clients();
        let terminal = |args: &[&str]| {
            let ran = kvservice(server, args, b"");
            assert_eq!(ran.status, Some(0), "{ran:?}");
            ran.out
        };

        let page = Page::open(round, &format!("http://{server}/")).await;
        page.until_connected().await;
        let members = page.until_members(3).await;
        let status = chain.settle(3).await;
        let names: Vec<String> = status.members.iter().map(|m| m.node.clone()).collect();
        assert_eq!(members, names, "the picture shows the chain, head to tail");

        // From the page to the terminal, and the other way round.
        page.prompt("set(color,red)", "set(color,red) -> red").await;
        assert_eq!(terminal(&["get", "color"]), "red\n");
        assert_eq!(terminal(&["set", "shape", "round"]), "OK\n");
        page.prompt("get(shape)", "get(shape) -> round").await;
        page.until_key("color", "red").await;
        page.until_key("shape", "round").await;

        // The same with the keys' own editor.
        page.add_key("fruit", "pear").await;
        page.until_key("fruit", "pear").await;
        assert_eq!(terminal(&["get", "fruit"]), "pear\n");

        // The head dies: the picture says so, and the page goes on.
        let head = chain.order_now().await[0];
        chain.kill(&[head]);
        let members = page.until_members(2).await;
        assert_eq!(members, names[1..], "the next node leads");
        page.until_event("failed").await;
        page.prompt("set(color,green)", "set(color,green) -> green")
            .await;
        assert_eq!(terminal(&["get", "color"]), "green\n");

        // The front-end dies: the page says so, and finds back by itself.
        chain.kill_front_end();
        page.until_disconnected().await;
        chain.start_front_end(&[]).await;
        page.until_connected().await;
        page.prompt(
            "testset(color,green,blue)",
            "testset(color,green,blue) -> blue [set]",
        )
        .await;
        assert_eq!(terminal(&["get", "color"]), "blue\n");

        // A node joins: it is in the picture.
        chain.add_node().await;
        page.until_members(3).await;
        page.assert_own_host_only().await;
        page.close().await;
        chain.settle(3).await;
    });
}
