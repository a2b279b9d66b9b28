//! The binary's own symbols are found by `dlsym`: without that the crate `getrandom` passes by `entropy`.

fn main() {
    println!("cargo:rustc-link-arg=-rdynamic");
}
