//! Finds what holds the overseer's thread up: it has one for everybody, so nothing on it may
//! wait for a disk, a process or a lock.
//!
//! Between two moments in which the thread has nothing to do it should never sleep. A busy
//! processor does not count: who is only pushed aside did not choose to sleep. The kernel
//! tells the two apart (proc(5), `schedstat`); where it does not, nothing is looked at. Nor
//! does it count when the system had to read a page of ours again (getrusage(2)). The state is
//! written by the thread itself, since what follows must not happen before: a disk that is
//! slow to take that has ten times as long.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tracing::warn;

/// What may pass unnoticed. In debug builds, which the tests use, as good as nothing.
const MOST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 20 } else { 200 });

/// The same of all sleep, with that over the state.
const MOST_WITH_STATE: Duration = Duration::from_millis(200);

/// Whether it is looked at: not while the overseer starts, when nobody waits for it.
static IS_ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SINCE: Cell<Option<Mark>> = const { Cell::new(None) };
}

/// When the thread began to work, how long it had been awake by then, how long it had worked
/// on the state, and how many pages had been read for it.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    awake: Duration,
    state: Duration,
    pages: i64,
}

/// How long the thread worked.
struct Held {
    all: Duration,
    /// How much of that it slept.
    asleep: Duration,
    /// How much of it went to the state.
    state: Duration,
}

impl Held {
    fn is_too_long(&self) -> bool {
        self.asleep.saturating_sub(self.state) > MOST || self.asleep > MOST_WITH_STATE
    }
}

impl Mark {
    fn now() -> Option<Self> {
        let state = fireclaw_daemon::time_on_state();
        Some(Self { at: Instant::now(), awake: awake()?, state, pages: pages() })
    }

    /// How long the thread has worked since.
    fn until_now(self) -> Option<Held> {
        let now = Self::now().filter(|now| now.pages == self.pages)?;
        let all = now.at - self.at;
        let asleep = all.saturating_sub(now.awake.saturating_sub(self.awake));
        Some(Held { all, asleep, state: now.state.saturating_sub(self.state) })
    }
}

/// Has a runtime of one thread tell what holds it up, once [`start`] was called.
pub fn watch(builder: &mut Builder) {
    builder.on_thread_unpark(|| {
        if IS_ON.load(Ordering::Relaxed) {
            SINCE.set(Mark::now());
        }
    });
    builder.on_thread_park(|| {
        if let Some(held) = SINCE.take().and_then(Mark::until_now).filter(Held::is_too_long) {
            let [all, asleep, state] =
                [held.all, held.asleep, held.state].map(|time| time.as_millis());
            warn!(
                "the overseer's thread was held up for {all} ms: asleep for {asleep}, \
                 at work on the state for {state}"
            );
        }
    });
}

/// From now on somebody may wait for the thread.
pub fn start() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// How long this thread has run, or waited for a processor.
fn awake() -> Option<Duration> {
    thread_local! {
        static STAT: OnceCell<Option<File>> = const { OnceCell::new() };
    }
    let mut text = [0; 64];
    let length = STAT.with(|stat| {
        let stat = stat.get_or_init(|| File::open("/proc/thread-self/schedstat").ok());
        stat.as_ref()?.read_at(&mut text, 0).ok()
    })?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let mut nanoseconds = text.split_whitespace().map_while(|number| number.parse().ok());
    let (running, waiting): (u64, u64) = (nanoseconds.next()?, nanoseconds.next()?);
    Some(Duration::from_nanos(running.saturating_add(waiting)))
}

/// How many pages the system has read from a disk for this thread.
#[allow(unsafe_code)]
fn pages() -> i64 {
    // SAFETY: all zeros are a valid `rusage`, and the call writes no more than one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_majflt
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
        let computed = logged(|| {
            let start = Instant::now();
            while start.elapsed() < long {
                std::hint::spin_loop();
            }
        });
        assert_eq!(computed, "");
    }
}
