//! The pages that the kernel gives to this process.

/// From now on memory is given in small pages (4 KiB), and not in huge ones (2 MiB), which the allocator would ask
/// for.
///
/// A huge page is cleared whole when it is first touched, and everybody waits meanwhile: one thread serves them all,
/// and the chain goes at the pace of its slowest node. Where a virtual machine's host had not given it that memory
/// yet, front-end and nodes ran up to 8 ms without a pause (`docs/performance.md`). Does nothing on systems other than Linux.
pub fn small() {
    // Where it is refused all is as before, and slower now and then.
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "cannot do without huge pages");
    }
}
