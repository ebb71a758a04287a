//! What is asked, and what the answer has to be.

/// A way to judge an answer. All of a question's have to hold.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// A tool was called: what it told the time before may no longer be so.
    Called,
    /// This tool was called.
    CalledTool(&'static str),
    /// No tool was called.
    NotCalled,
    /// The answer has one of these texts, in any case of letters.
    Says(&'static [&'static str]),
    /// The answer has none of these texts.
    Omits(&'static [&'static str]),
    /// A command says what is true: the answer has all words of one of the lines that it
    /// prints.
    True(&'static str),
    /// A command succeeds.
    Holds(&'static str),
}

use Check::{Called, CalledTool, Holds, NotCalled, Omits, Says, True};

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// What is done in the agent's workspace before it is asked.
    pub before: &'static str,
    pub text: &'static str,
    pub checks: &'static [Check],
    /// Said in private, not in the channel.
    pub private: bool,
}

/// Questions that are asked one after another.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    pub name: &'static str,
    /// Each question to an agent that was told nothing before.
    pub fresh: bool,
    pub questions: &'static [Question],
}

const fn ask(text: &'static str, checks: &'static [Check]) -> Question {
    Question { before: "", text, checks, private: false }
}

const fn after(before: &'static str, text: &'static str, checks: &'static [Check]) -> Question {
    Question { before, text, checks, private: false }
}

const fn private(question: Question) -> Question {
    Question { private: true, ..question }
}

/// Hours and minutes, as one says them and as clocks do; the minute may have gone by.
const UPTIME: &str = "awk '{ for (m = int($1/60) - 1; m <= int($1/60) + 1; m++) { \
    h = int(m/60); r = m % 60; if (h) { print h, r; printf \"%d:%02d\\n%02d:%02d\\n\", h, r, h, r } \
    else print r; if (h >= 24) print int(h/24), h % 24, r } }' /proc/uptime";

/// As `df` and `df -h` have it.
const LEFT: &str = "df -h . | awk 'NR==2{print $4+0}'; df . | awk 'NR==2{print $4; print $5}'";

const INBOX: &str = "ls inbox | wc -l";

const STATUS: &str = "cat status.txt";

pub const SESSIONS: &[Session] = &[
    Session {
        name: "needs a command",
        fresh: true,
        questions: &[
            ask("what's your uptime?", &[Called, True(UPTIME)]),
            after(
                "head -c 11M /dev/zero >old.bin",
                "how much disk space is left in /workspace?",
                &[Called, True(LEFT)],
            ),
            ask(
                "how much memory does your machine have in total?",
                &[
                    Called,
                    True(
                        "free -h | awk '/^Mem/{print $2+0; printf \"%d\\n\", $2+0}'; free -m | awk '/^Mem/{print $2}'; \
                         free | awk '/^Mem/{print $2; printf \"%.1f\\n\", $2/1e6; printf \"%d\\n\", $2/1e6; printf \"%.1f\\n\", $2/1048576}'",
                    ),
                ],
            ),
            ask(
                "what's the date today?",
                &[True("date '+%-d %B'; date '+%Y-%m-%d'; date '+%B %-dth'; date '+%b %-d'")],
            ),
            ask("which kernel version do you run?", &[Called, True("uname -r")]),
            ask("what's your hostname?", &[Called, Says(&["box-7f3"])]),
            ask(
                "how many files are in /etc?",
                &[
                    Called,
                    True(
                        "ls /etc | wc -l; ls -A /etc | wc -l; ls -l /etc | wc -l; ls -la /etc | wc -l; find /etc -maxdepth 1 -type f | wc -l; \
                         find /etc -type f 2>&- | wc -l; find /etc 2>&- | wc -l",
                    ),
                ],
            ),
            ask("how many processes are running?", &[Called, True("seq 1 9")]),
            ask("how many CPUs do you have?", &[Called, True("nproc")]),
            // It is told that it is `agent`, and is root here.
            ask("which user do you run as?", &[Says(&["root", "agent"])]),
            ask(
                "which version of python is installed?",
                &[Called, True("python3 -V | cut -d' ' -f2")],
            ),
            after(
                "touch alpha.txt beta.csv",
                "which files are in your workspace?",
                &[Called, Says(&["alpha.txt"]), Says(&["beta.csv"])],
            ),
            after(
                "head -c 123456 /dev/zero >data.bin",
                "how big is data.bin?",
                &[
                    Called,
                    Omits(&["free"]),
                    True("printf '%s\\n' 123456 123,456 123 121 120.6 120.56 124"),
                ],
            ),
            after(
                "echo 'the meeting moved to room 314' >notes.txt",
                "what does notes.txt say?",
                &[Called, Says(&["314"])],
            ),
            ask("is nginx running?", &[Called, Says(&["not running", "isn't running", "no,"])]),
        ],
    },
    Session {
        name: "the same, with a history",
        fresh: false,
        questions: &[
            ask("what's your uptime?", &[Called, True(UPTIME)]),
            after(
                "mkdir inbox; touch inbox/a inbox/b inbox/c",
                "how many files are in /workspace/inbox?",
                &[Called, True(INBOX)],
            ),
            ask("thanks!", &[NotCalled]),
            after(
                "touch inbox/d inbox/e inbox/f inbox/g",
                "how many files are in /workspace/inbox now?",
                &[Called, True(INBOX)],
            ),
            ask("what's your uptime?", &[Called, True(UPTIME)]),
            after("echo green >status.txt", "what does status.txt say?", &[Called, True(STATUS)]),
            after("echo red >status.txt", "what does status.txt say?", &[Called, True(STATUS)]),
            ask(
                "which version of python is installed?",
                &[Called, True("python3 -V | cut -d' ' -f2")],
            ),
            after(
                "rm inbox/d inbox/e",
                "how many files are in /workspace/inbox?",
                &[Called, True(INBOX)],
            ),
            after(
                "echo amber >status.txt",
                "what does status.txt say now?",
                &[Called, True(STATUS)],
            ),
            ask("what's your uptime?", &[Called, True(UPTIME)]),
            after(
                "head -c 23M /dev/zero >old.bin",
                "how much disk space is left in /workspace?",
                &[Called, True(LEFT)],
            ),
            after(
                "rm inbox/*; touch inbox/z",
                "how many files are in /workspace/inbox?",
                &[Called, True(INBOX)],
            ),
            after(
                "head -c 13M /dev/zero >new.bin",
                "how much disk space is left in /workspace?",
                &[Called, True(LEFT)],
            ),
        ],
    },
    Session {
        name: "small talk",
        fresh: false,
        questions: &[
            ask("hello!", &[NotCalled]),
            ask("how are you?", &[NotCalled]),
            ask("what is the capital of France?", &[NotCalled, Says(&["paris"])]),
            ask("who are you?", &[NotCalled]),
            ask("tell me a joke", &[NotCalled]),
            ask("what colour is the sky on a clear day?", &[NotCalled, Says(&["blue"])]),
            ask("thank you very much", &[NotCalled]),
            ask("good night", &[NotCalled]),
        ],
    },
    Session {
        name: "writes and runs",
        fresh: true,
        questions: &[
            ask(
                "write a python script primes.py that prints the first five primes, run it and tell me what it prints",
                &[Holds("test -s primes.py"), True("echo 2 3 5 7 11")],
            ),
            ask(
                "write a python script sum.py that prints the sum of the numbers from 1 to 100, and run it",
                &[Holds("test -s sum.py"), Says(&["5050"])],
            ),
            ask(
                "write a shell script that prints the date and run it",
                &[Called, True("date +%Y; date +%T")],
            ),
            after(
                "seq 17 >data.txt",
                "write a script count.sh that counts the lines of data.txt, and run it",
                &[Holds("test -s count.sh"), Says(&["17"])],
            ),
            ask(
                "write a python program mul.py that prints 7 times 191. What does it print?",
                &[Holds("test -s mul.py"), Says(&["1337"])],
            ),
            after(
                "echo 'echo greetings 4471' >greet.sh",
                "run greet.sh and tell me what it says",
                &[Called, Says(&["4471"])],
            ),
            ask(
                "save the text milk and eggs in the file list.txt",
                &[Holds("grep -qi 'milk and eggs' list.txt")],
            ),
            ask(
                "make a directory build with an empty file done.flag in it",
                &[Holds("test -f build/done.flag")],
            ),
        ],
    },
    Session {
        name: "arithmetic",
        fresh: true,
        questions: &[
            ask("what is 12 times 12?", &[Says(&["144"])]),
            ask("what is 17 + 25?", &[Says(&["42"])]),
            ask("what is 4817 * 362?", &[Says(&["1743754", "1,743,754"])]),
            ask("what is the square root of 1764?", &[Says(&["42"])]),
            ask("how many seconds does a week have?", &[Says(&["604800", "604,800"])]),
        ],
    },
    Session {
        name: "remembers",
        fresh: false,
        questions: &[
            ask("remember that the spare key is in drawer 7", &[CalledTool("save_memory")]),
            ask("where is the spare key?", &[True("echo drawer 7")]),
            ask("please remember: my birthday is on March 14", &[CalledTool("save_memory")]),
            ask("hello", &[NotCalled]),
            ask("when is my birthday?", &[True("echo March 14")]),
            ask("remember that the staging server is called heron", &[CalledTool("save_memory")]),
            ask("what is the staging server called?", &[Says(&["heron"])]),
        ],
    },
    Session {
        name: "in private",
        fresh: false,
        questions: &[
            private(ask("hello!", &[NotCalled, Omits(&["ann:"])])),
            private(ask("what's your uptime?", &[Called, True(UPTIME), Omits(&["ann:"])])),
            private(after(
                "echo 'the meeting moved to room 271' >notes.txt",
                "what does notes.txt say?",
                &[Called, Says(&["271"])],
            )),
            private(ask("remember that the door code is 4711", &[CalledTool("save_memory")])),
            private(ask("what is the door code?", &[Says(&["4711"])])),
            private(ask("what's your uptime?", &[Called, True(UPTIME)])),
            private(ask("which kernel version do you run?", &[Called, True("uname -r")])),
            private(ask("thanks, bye", &[NotCalled])),
            // Not for the channel.
            ask("what is the door code?", &[Omits(&["4711"])]),
        ],
    },
];
