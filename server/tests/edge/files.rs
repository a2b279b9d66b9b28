//! The browser client's files.

use super::rig::*;
use kvservice_server::config::EdgeConfig;
use std::fs;

const PAGE: &str = "<!doctype html><link rel=\"modulepreload\" href=\"/page-0123456789abcdef.js\">\
    <script type=\"module\">\nimport init from '/page-0123456789abcdef.js';\nawait init();\n</script>";
/// The script above through `openssl dgst -sha256 -binary | base64`.
const SCRIPT_HASH: &str = "m3J73D4AE9o+WlWGoFfAlKhzr64kqWxBMCgRmNkEfZ4=";

fn config(dir: &tempfile::TempDir) -> EdgeConfig {
    EdgeConfig {
        web_dir: Some(dir.path().join("web")),
        ..EdgeConfig::default()
    }
}

#[tokio::test]
async fn the_page_comes_with_its_policy_once_it_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, _seen) = echo_rig(config(&dir)).await;
    let unbuilt = http_get(rig.addr, "/", "").await;
    assert_eq!(unbuilt.status, 200);
    assert!(unbuilt.text().contains("cargo xtask web"));
    assert!(
        unbuilt.text().contains("http-equiv=\"refresh\""),
        "it reloads by itself"
    );
    assert_eq!(unbuilt.header("cache-control"), Some("no-store"));
    assert!(
        unbuilt
            .header("content-security-policy")
            .unwrap()
            .contains("style-src 'self' 'sha256-")
    );

    fs::create_dir(dir.path().join("web")).unwrap();
    fs::write(dir.path().join("web/index.html"), PAGE).unwrap();
    let page = http_get(rig.addr, "/", "").await;
    assert_eq!((page.status, page.text()), (200, PAGE));
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").unwrap();
    let scripts = format!("script-src 'self' 'wasm-unsafe-eval' 'sha256-{SCRIPT_HASH}';");
    assert!(policy.contains(&scripts), "{policy}");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(
        !policy.contains("script-src 'self' 'unsafe-inline'"),
        "{policy}"
    );

    let etag = page.header("etag").unwrap();
    let again = http_get(
        rig.addr,
        "/index.html",
        &format!("If-None-Match: {etag}\r\n"),
    )
    .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    fs::write(dir.path().join("web/index.html"), "<p>built anew").unwrap();
    let anew = http_get(rig.addr, "/", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((anew.status, anew.text()), (200, "<p>built anew"));
    fs::remove_dir_all(dir.path().join("web")).unwrap();
    assert!(
        http_get(rig.addr, "/", "")
            .await
            .text()
            .contains("cargo xtask web")
    );
}

#[tokio::test]
async fn compressed_files_go_to_those_who_accept_them() {
    let dir = tempfile::tempdir().unwrap();
    let web = dir.path().join("web");
    fs::create_dir(&web).unwrap();
    let name = "page-0123456789abcdef_bg.wasm";
    fs::write(web.join(name), "plain").unwrap();
    fs::write(web.join(format!("{name}.br")), "brotli").unwrap();
    fs::write(web.join(format!("{name}.gz")), "gzip").unwrap();
    fs::write(web.join("style.css"), "a{}").unwrap();
    let (rig, _seen) = echo_rig(config(&dir)).await;
    let mut etags = Vec::new();
    for (accept, encoding, body) in [
        (
            "Accept-Encoding: gzip, deflate, br, zstd\r\n",
            Some("br"),
            "brotli",
        ),
        ("Accept-Encoding: gzip\r\n", Some("gzip"), "gzip"),
        (
            "Accept-Encoding: br;q=0, gzip;q=0.1\r\n",
            Some("gzip"),
            "gzip",
        ),
        ("Accept-Encoding: identity\r\n", None, "plain"),
        ("", None, "plain"),
    ] {
        let answer = http_get(rig.addr, &format!("/{name}"), accept).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{accept}");
        assert_eq!(answer.header("content-encoding"), encoding);
        assert_eq!(answer.header("content-type"), Some("application/wasm"));
        assert_eq!(
            answer.header("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        etags.push(answer.header("etag").unwrap().to_string());
    }
    assert_ne!(etags[0], etags[1], "another form is another entity");
    let style = http_get(rig.addr, "/style.css?v=1", "Accept-Encoding: br\r\n").await;
    assert_eq!(
        (style.text(), style.header("content-encoding")),
        ("a{}", None)
    );
    assert_eq!(style.header("cache-control"), Some("no-cache"));

    let head = format!("HEAD /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let head = http_raw(rig.addr, &head).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("5"), 0)
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let web = dir.path().join("web");
    fs::create_dir_all(web.join("sub")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(web.join(".hidden"), "secret").unwrap();
    fs::write(web.join("index.html"), PAGE).unwrap();
    let (rig, _seen) = echo_rig(config(&dir)).await;
    let absolute = dir.path().join("secret");
    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub%2f..%2f..%2fsecret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/.hidden",
        "/%2ehidden",
        "/sub",
        "/sub/",
        "/index.html/",
        "/index.html/x",
        "/index.html%00",
        &format!("/{}", absolute.display()),
        &"/x".repeat(3000),
        &format!("/{}", "y".repeat(5000)),
    ] {
        let answer = http_get(rig.addr, path, "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret"), "{path}");
    }
}
