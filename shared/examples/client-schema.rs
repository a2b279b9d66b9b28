//! Writes `docs/client-protocol.schema.json`:
//! `cargo run -p kvservice-shared --features schema --example client-schema`

use std::path::Path;

fn main() -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/client-protocol.schema.json");
    std::fs::write(&path, kvservice_shared::api::schema::document())?;
    println!("wrote {}", path.display());
    Ok(())
}
