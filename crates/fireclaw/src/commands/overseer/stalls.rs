//! Finds what holds the overseer's thread up: it has one for everybody, so nothing on it may
//! wait for a disk, a process or a lock.
//!
//! Between two moments in which the thread has nothing to do it should never sleep. A busy
//! processor does not count: who is only pushed aside did not choose to sleep.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tracing::warn;

/// What may pass unnoticed. In debug builds, which the tests use, as good as nothing.
const MOST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 20 } else { 200 });

/// Whether it is looked at: not while the overseer starts, when nobody waits for it.
static IS_ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SINCE: Cell<Option<Mark>> = const { Cell::new(None) };
}

/// When the thread began to work, and how often it had slept by then.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    sleeps: i64,
}

impl Mark {
    fn now() -> Self {
        Self { at: Instant::now(), sleeps: sleeps() }
    }
}

/// Has a runtime of one thread tell what holds it up, once [`start`] was called.
pub fn watch(builder: &mut Builder) {
    builder.on_thread_unpark(|| {
        if IS_ON.load(Ordering::Relaxed) {
            SINCE.set(Some(Mark::now()));
        }
    });
    builder.on_thread_park(|| {
        if let Some(since) = SINCE.take() {
            let now = Mark::now();
            let held = now.at - since.at;
            if held > MOST && now.sleeps > since.sleeps {
                let (ms, sleeps) = (held.as_millis(), now.sleeps - since.sleeps);
                warn!("the overseer's thread was held up for {ms} ms, asleep {sleeps} times");
            }
        }
    });
}

/// From now on somebody may wait for the thread.
pub fn start() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// How often this thread has slept by itself (getrusage(2), `ru_nvcsw`).
#[allow(unsafe_code)]
fn sleeps() -> i64 {
    // SAFETY: all zeros are a valid `rusage`, and the call writes no more than one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nvcsw
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(work: impl Fn()) -> String {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt().with_writer(kept.clone()).finish();
        start();
        let mut builder = Builder::new_current_thread();
        watch(builder.enable_time());
        tracing::subscriber::with_default(subscriber, || {
            builder.build().unwrap().block_on(async {
                let pause = || tokio::time::sleep(Duration::from_millis(1));
                pause().await;
                work();
                pause().await;
            });
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn who_sleeps_is_found_and_who_computes_is_not() {
        let long = MOST * 3;
        let slept = logged(|| std::thread::sleep(long));
        assert!(slept.contains("the overseer's thread was held up for"), "{slept}");
        // On a busy machine it may be put to sleep for other reasons; not five times in a row.
        let computed = (0..5).map(|_| {
            logged(|| {
                let start = Instant::now();
                while start.elapsed() < long {
                    std::hint::spin_loop();
                }
            })
        });
        assert!(computed.into_iter().any(|log| log.is_empty()));
    }
}
