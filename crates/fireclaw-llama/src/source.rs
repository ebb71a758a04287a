//! Compiles llama-server, for a processor that the prebuilt one cannot run on.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use fireclaw_host::{PathError, find_program};
use fireclaw_llm::escape;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::package::clear;
use crate::processor::Processor;
use crate::{Error, Result};

/// The program that comes out.
pub const PROGRAM: &str = "llama-server";

/// What has to be there, and what asks for it where it is another name.
const TOOLS: [&str; 4] = ["cmake", "make", "g++", "tar"];

/// For every x86-64-v2 processor, with nothing but the C++ library: no code for newer
/// processors, no TLS, no page of its own, nothing that is fetched while it is built.
const OPTIONS: [&str; 17] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_SSE42=ON",
    "-DGGML_AVX=OFF",
    "-DGGML_AVX2=OFF",
    "-DGGML_BMI2=OFF",
    "-DGGML_FMA=OFF",
    "-DGGML_F16C=OFF",
    "-DGGML_OPENMP=OFF",
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
];

/// Builds, and ends with whoever started it: its standard input is closed then, also after
/// kill -9, and nothing of its process group is left.
const BUILD: &str = r#"
exec 3<&0
source=$1 made=$2 jobs=$3
shift 3
{
    cmake -S "$source" -B "$made" "$@" &&
    cmake --build "$made" --target llama-server --parallel "$jobs"
} </dev/null 3<&- &
build=$!
{ cat <&3; kill -KILL 0; } >/dev/null 2>&1 &
watch=$!
wait "$build"
status=$?
kill "$watch"
exit "$status"
"#;

/// The end of what was said that an error shows.
const LAST_WORDS: usize = 16 * 1024;

/// Whether it can be compiled here.
///
/// # Errors
/// [`Error::Processor`] with what is missing.
pub fn can_build(processor: &Processor) -> Result<()> {
    let is_missing = |tool: &&str| find_program("", tool).is_err();
    let missing: Vec<&str> = TOOLS.iter().copied().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Processor {
        name: processor.name.clone(),
        missing: processor.missing().join(", "),
        tools: missing.join(", "),
    })
}

/// Compiles the server from the folder `root` of an archive, so that `directory` has the
/// program and nothing else. `heard` is told percents.
///
/// # Errors
/// [`Error::Build`], [`Error::File`].
pub async fn build(
    archive: &Path,
    root: &str,
    directory: &Path,
    heard: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    let (source, made) = (directory.join("source"), directory.join("build"));
    fs::create_dir_all(&source).map_err(PathError::at("create", &source))?;
    let depth = format!("--strip-components={}", root.split('/').count());
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(archive).arg("-C").arg(&source).arg(depth).arg(root);
    run(unpack, &mut |_| ()).await?;
    let mut build = Command::new("/bin/sh");
    build.args(["-c", BUILD, "sh"]).arg(&source).arg(&made).arg(jobs().to_string()).args(OPTIONS);
    run(build, heard).await?;
    let program = directory.join(PROGRAM);
    fs::rename(made.join("bin").join(PROGRAM), &program)
        .map_err(PathError::at("create", &program))?;
    // Whole on the disk before its directory has the name that says so.
    let written = fs::File::open(&program).and_then(|file| file.sync_all());
    written.map_err(PathError::at("write", &program))?;
    clear(&source)?;
    clear(&made)
}

/// How many files are compiled at once: as many as there are processors, and memory for.
fn jobs() -> u64 {
    const EACH_MIB: u64 = 1536;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = free.and_then(|free| free.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    processors.min(kib.unwrap_or(u64::MAX) / 1024 / EACH_MIB).max(1)
}

/// Runs a command to its end, and hears of its progress.
async fn run(mut command: Command, heard: &mut (dyn FnMut(u64) + Send)) -> Result<()> {
    let failed = |problem: String| Error::Build { problem };
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    // Held until the end: see [`BUILD`].
    let _alive = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let listening = async {
        let Some(stdout) = stdout else { return };
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(percent) = percent(&line) {
                heard(percent);
            }
        }
    };
    let words = async {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        let Some(mut stderr) = stderr else { return kept };
        while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..n]);
            kept.drain(..kept.len().saturating_sub(LAST_WORDS));
        }
        kept
    };
    let ((), words) = tokio::join!(listening, words);
    let status = child.wait().await.map_err(|e| failed(e.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&words);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    Err(failed(format!("{status}: {}", escape(last.unwrap_or("it said nothing")))))
}

/// How far a build is, from a line such as `[ 42%] Building CXX object …`.
fn percent(line: &str) -> Option<u64> {
    let (percent, _) = line.strip_prefix('[')?.split_once("%]")?;
    percent.trim().parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn progress_is_read_and_nothing_else() {
        assert_eq!(percent("[  8%] Built target cpp-httplib"), Some(8));
        assert_eq!(percent("[100%] Linking CXX executable"), Some(100));
        for other in ["", "[", "[x%] y", "[101%] z", "-- [12%]"] {
            assert_eq!(percent(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_newer_than_x86_64_v2_is_compiled_in_and_nothing_is_fetched() {
        let off = |name: &str| assert!(OPTIONS.contains(&&*format!("-D{name}=OFF")), "{name}");
        for newer in ["AVX", "AVX2", "BMI2", "FMA", "F16C", "NATIVE", "OPENMP"] {
            off(&format!("GGML_{newer}"));
        }
        for more in ["BUILD_UI", "USE_PREBUILT_UI", "OPENSSL"] {
            off(&format!("LLAMA_{more}"));
        }
        off("BUILD_SHARED_LIBS");
    }

    #[tokio::test]
    async fn what_fails_says_its_last_words() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo '[ 50%] half'; echo \"bad \x1b[1m\" >&2; exit 3"]);
        let mut at = 0;
        let error = run(command, &mut |percent| at = percent).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("bad \\u{1b}[1m"), "{error}");
        assert_eq!(at, 50);
    }

    #[tokio::test]
    async fn a_build_that_is_over_is_not_waited_for() {
        for (status, expected) in [(0, true), (3, false)] {
            let cmake = format!("cmake() {{ echo '[100%] built'; return {status}; }}\n");
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("{cmake}{BUILD}"), "sh", "source", "build", "1"]);
            let mut at = 0;
            let done = run(command, &mut |percent| at = percent).await;
            assert_eq!((done.is_ok(), at), (expected, 100), "{done:?}");
        }
    }

    /// A `cmake` of the test's own on PATH would be another program for the whole process, so
    /// the script alone is tried, with a function in its place.
    #[tokio::test]
    async fn a_build_ends_with_who_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("pid");
        let slow = format!("cmake() {{ sleep 600 & echo $! >{}; wait; }}\n", mark.display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{slow}{BUILD}"), "sh", "source", "build", "1"]);
        let pid = {
            let mut heard = |_| ();
            let running = run(command, &mut heard);
            tokio::pin!(running);
            loop {
                tokio::select! {
                    ended = &mut running => panic!("{ended:?}"),
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
                match fs::read_to_string(&mark).unwrap_or_default().trim().parse::<u32>() {
                    Ok(pid) => break pid,
                    Err(_) => continue,
                }
            }
        };
        // Dropped, it takes everything along.
        let process = format!("/proc/{pid}/stat");
        let lives = || fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "));
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while lives() {
            assert!(std::time::Instant::now() < deadline, "{pid} runs on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
