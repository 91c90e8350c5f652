//! The allocator's share of the memory limit.

/// How many heaps glibc may keep apart. By default it makes up to eight a core, and a heap that once held a batch keeps its
/// pages: a 700,000-row transaction peaked at 263 MiB resident with the default and at 205 MiB with two.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: libc::c_int = 2;

/// Keeps the allocator from multiplying what the buffers are limited to (B2). To be called once, before any other thread runs.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn keep_heaps_few() {
    // SAFETY: mallopt takes two integers and is called while this is the only thread, as its manual asks.
    let accepted = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
    if accepted == 0 {
        tracing::debug!("the allocator keeps its own number of heaps");
    }
}

/// Other C libraries have no such setting.
#[cfg(not(target_env = "gnu"))]
pub fn keep_heaps_few() {}
