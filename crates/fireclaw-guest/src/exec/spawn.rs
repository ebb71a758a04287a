//! From a request to a running process.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fireclaw_protocol::message::{ExecFailure, ExecRequest};
use rustix::process::{Gid, Uid};

use super::Failure;
use super::tree::Tree;
use super::users::{self, User};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the command in `tree`, as the asked user. Its standard streams are its side of a
/// terminal, or pipes.
pub fn spawn(
    request: &ExecRequest,
    tree: &Tree,
    terminal: Option<OwnedFd>,
) -> Result<Child, Failure> {
    let bad = |what: &str| (ExecFailure::BadRequest, what.to_owned());
    let (program, arguments) =
        request.argv.split_first().ok_or_else(|| bad("the command is empty"))?;
    if program.is_empty() {
        return Err(bad("the command is empty"));
    }
    let has_nul = |bytes: &[u8]| bytes.contains(&0);
    if request.argv.iter().any(|a| has_nul(a)) {
        return Err(bad("an argument contains a NUL byte"));
    }
    if request.terminal.as_ref().is_some_and(|terminal| has_nul(&terminal.kind)) {
        return Err(bad("the kind of terminal contains a NUL byte"));
    }
    for variable in &request.env {
        let name = &variable.name[..];
        if name.is_empty() || name.contains(&b'=') || has_nul(name) || has_nul(&variable.value) {
            return Err(bad("an environment variable is not valid"));
        }
    }
    let user = user(request.user.as_deref().unwrap_or("root"))?;
    let workdir = workdir(request, &user)?;

    let mut command = Command::new(OsStr::from_bytes(program));
    command
        .args(arguments.iter().map(|a| OsStr::from_bytes(a)))
        .current_dir(workdir)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .env("SHELL", &user.shell)
        .env("LANG", "C.UTF-8")
        .envs(terminal_kind(request))
        .envs(request.env.iter().map(|v| (OsStr::from_bytes(&v.name), OsStr::from_bytes(&v.value))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let has_terminal = terminal.is_some();
    if let Some(terminal) = terminal {
        give(&mut command, terminal, &user)
            .map_err(|e| (ExecFailure::Other, format!("the terminal: {e}")))?;
    }
    become_user(&mut command, user, tree, has_terminal);
    command.spawn().map_err(|e| {
        let cause = match e.kind() {
            ErrorKind::NotFound => ExecFailure::NotFound,
            ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::ArgumentListTooLong => ExecFailure::NotExecutable,
            _ if e.raw_os_error() == Some(libc::ENOEXEC) => ExecFailure::NotExecutable,
            _ => ExecFailure::Other,
        };
        let name = String::from_utf8_lossy(&program[..program.len().min(MAX_NAME_SHOWN)]);
        let why = match e.kind() {
            ErrorKind::ArgumentListTooLong => too_long(request),
            _ => e.to_string(),
        };
        (cause, format!("{name}: {why}"))
    })
}

/// The variable that says which kind of terminal there is.
fn terminal_kind(request: &ExecRequest) -> Option<(&'static str, &OsStr)> {
    let terminal = request.terminal.as_ref()?;
    Some(("TERM", OsStr::from_bytes(&terminal.kind)))
}

/// Makes a terminal the user's, who may open it again by its name, and all of the command's
/// streams.
fn give(command: &mut Command, terminal: OwnedFd, user: &User) -> io::Result<()> {
    rustix::fs::fchown(&terminal, Some(Uid::from_raw(user.uid.get())), None)?;
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    Ok(())
}

/// How much of a program's name an error repeats, in bytes: it may have 4 MiB.
const MAX_NAME_SHOWN: usize = 4096;

/// The longest argument or variable that Linux takes, in bytes, with the NUL at its end
/// (execve(2), `MAX_ARG_STRLEN` for pages of 4 KiB).
const MAX_ARGUMENT: usize = 128 * 1024;

/// What all arguments and variables may have together, in bytes: a quarter of the limit
/// on the stack, which is 8 MiB (execve(2)).
const MAX_ARGUMENTS: usize = 2 * 1024 * 1024;

/// Which limit of the kernel the command's words do not keep.
fn too_long(request: &ExecRequest) -> String {
    // `NAME=VALUE` is one string.
    let variables = request.env.iter().map(|it| it.name.len() + 1 + it.value.len());
    let strings = request.argv.iter().map(|word| word.len()).chain(variables);
    match strings.max().unwrap_or(0) + 1 {
        longest if longest > MAX_ARGUMENT => format!(
            "an argument or variable of {longest} bytes is too long, Linux takes {MAX_ARGUMENT}; \
             pass it on standard input or in a file"
        ),
        _ => format!(
            "all arguments and variables together are too long, Linux takes {MAX_ARGUMENTS} \
             bytes; pass them on standard input or in a file"
        ),
    }
}

fn user(asked: &str) -> Result<User, Failure> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let group = fs::read("/etc/group").unwrap_or_default();
    users::find(asked, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group))
        .map_err(|why| (ExecFailure::NoSuchUser, why))
}

fn workdir<'a>(request: &'a ExecRequest, user: &'a User) -> Result<&'a Path, Failure> {
    match &request.workdir {
        Some(asked) => {
            let path = Path::new(OsStr::from_bytes(asked));
            match fs::metadata(path) {
                Ok(found) if found.is_dir() => Ok(path),
                Ok(_) => {
                    Err((ExecFailure::BadWorkdir, format!("{}: not a directory", path.display())))
                }
                Err(e) => Err((ExecFailure::BadWorkdir, format!("{}: {e}", path.display()))),
            }
        }
        None if user.home.is_dir() => Ok(&user.home),
        None => Ok(Path::new("/")),
    }
}

/// Makes the child a session leader in its cgroup, of the terminal that is its standard input
/// if it has one, with the user's rights.
#[allow(unsafe_code)]
fn become_user(command: &mut Command, user: User, tree: &Tree, has_terminal: bool) {
    use std::os::unix::process::CommandExt;
    let mut entrance = tree.entrance();
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(gid.get())).collect();
    let (uid, gid) = (Uid::from_raw(user.uid.get()), Gid::from_raw(user.gid.get()));
    let hook = move || {
        rustix::process::setsid()?;
        if has_terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some(file) = &mut entrance {
            file.write_all(b"0")?;
        }
        // Groups first: without root's rights they could no longer be set.
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        // Whatever was asked of the kernel: nothing runs as somebody else.
        if rustix::process::geteuid() != uid || rustix::process::getegid() != gid {
            return Err(rustix::io::Errno::PERM.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed.
    // The hook makes bare system calls on data made before; it neither
    // allocates nor locks, and the child has a single thread.
    unsafe {
        command.pre_exec(hook);
    }
}
