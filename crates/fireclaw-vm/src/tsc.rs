//! The rate of the host's time-stamp counter.
//!
//! Under TCG the guest's `rdtsc` is the host's, so the guest must be told the
//! host's rate (`tsc_early_khz=`) or it will try to measure it and hang.

use std::time::{Duration, Instant};

/// How long is measured. 50 ms give the rate to within 0.01 %, and the
/// kernel's own refinement takes it from there.
const SPAN: Duration = Duration::from_millis(50);

/// Measures the rate in kHz; takes 50 ms, so callers keep the result.
pub fn khz() -> u64 {
    let (start, begin) = (Instant::now(), ticks());
    std::thread::sleep(SPAN);
    let (elapsed, end) = (start.elapsed(), ticks());
    let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
    end.wrapping_sub(begin).saturating_mul(1_000_000) / nanoseconds
}

#[allow(unsafe_code)]
fn ticks() -> u64 {
    // SAFETY: rdtsc has no preconditions in user space; a host that forbids it
    // (CR4.TSD) forbids it to every program.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_measurements_agree() {
        let (a, b) = (super::khz(), super::khz());
        assert!(a.abs_diff(b) < a / 100, "{a} {b}");
    }
}
