//! Our own tools, as the model is told of them.

use fireclaw_protocol::chat::{Example, Tool};
use serde_json::{Value, json};

use crate::told::Told;

pub const RUN_COMMAND: &str = "run_command";
pub const READ_FILE: &str = "read_file";
pub const WRITE_FILE: &str = "write_file";
pub const SAVE_MEMORY: &str = "save_memory";
pub const RECALL: &str = "recall";
pub const FETCH_URL: &str = "fetch_url";

/// Whether one of our own tools has this name, offered or not.
pub fn has(name: &str) -> bool {
    all(true).iter().any(|tool| tool.name == name)
}

/// All of them, the most useful first. The smallest models are shown the first examples only
/// and do what they see: the one that searches memories, which are in the prompt in short
/// anyway, comes last.
pub fn all(may_fetch: bool) -> Vec<Tool> {
    let mut tools = vec![run_command(), write_file(), save_memory(), read_file(), recall()];
    if may_fetch {
        tools.push(fetch_url());
    }
    tools
}

fn run_command() -> Tool {
    // No figure in the examples could be true, and no question is one that people ask in these
    // words: a small model repeats what it has seen.
    tool(
        RUN_COMMAND,
        "Runs a shell command on your machine, in /workspace, and gives back its output and exit status. Use it for every question about the machine (uptime -p, df -h, free -h, nproc, uname -r, hostname, whoami, ps ax, pgrep, ls, cat, wc) and for all arithmetic. It has no input, a time limit, and nothing of it runs on afterwards.",
        &[("command", "the command, for /bin/sh -c")],
        vec![
            example(
                "what's your load?",
                json!({"command": "cut -d' ' -f1 /proc/loadavg"}),
                Told::data("99.99\nexit status: 0"),
                "My load is 99.99.",
            ),
            example(
                "how many files are in /opt?",
                json!({"command": "ls /opt | wc -l"}),
                Told::data("99999\nexit status: 0"),
                "There are 99999 files in /opt.",
            ),
            example(
                "how much is 31 times 77?",
                json!({"command": "echo $((31 * 77))"}),
                Told::data("2387\nexit status: 0"),
                "It is 2387.",
            ),
        ],
    )
}

fn write_file() -> Tool {
    let mut write_file = tool(
        WRITE_FILE,
        "Writes a text file or a script, in place of what it had before, and runs the script if you want that.",
        &[
            ("path", "the file, relative to /workspace or absolute"),
            ("content", "all that is to be in it"),
        ],
        vec![
            example(
                "write a python script hi.py that says hello, and run it",
                json!({"content": "print('hello')\n", "path": "hi.py", "run": "yes"}),
                Told::data("hello\nexit status: 0")
                    .within("Wrote 15 bytes to hi.py. It was run:\n", ""),
                "I wrote hi.py and ran it. It printed: hello",
            ),
            example(
                "put buy bread into shopping.txt",
                json!({"content": "buy bread\n", "path": "shopping.txt", "run": "no"}),
                Told::note("Wrote 10 bytes to shopping.txt."),
                "I put it into shopping.txt.",
            ),
        ],
    );
    // Not required: larger models leave it out.
    let run = json!({
        "type": "string",
        "enum": ["yes", "no"],
        "description": "whether it is a script that is to be run now",
    });
    write_file.parameters["properties"]["run"] = run;
    write_file
}

fn save_memory() -> Tool {
    tool(
        SAVE_MEMORY,
        "Remembers a fact for good. Use it when somebody asks you to remember something, or tells you what will matter later. The same name replaces what was saved before.",
        &[("name", "a short title"), ("text", "the fact, in full sentences")],
        vec![example(
            "remember that the deploy is on Friday",
            json!({"name": "deploy day", "text": "The deploy is on Friday."}),
            Told::note("Saved in memory/deploy-day.md."),
            "I will remember that the deploy is on Friday.",
        )],
    )
}

fn recall() -> Tool {
    tool(
        RECALL,
        "Searches what people told you here earlier, by words. Use it only for that, never for what a command can tell.",
        &[("query", "the words to look for")],
        vec![example(
            "what did I tell you about the deploy?",
            json!({"query": "deploy"}),
            Told::data("memory/deploy-day.md:\nThe deploy is on Friday."),
            "You told me that the deploy is on Friday.",
        )],
    )
}

fn read_file() -> Tool {
    tool(
        READ_FILE,
        "Reads a text file.",
        &[("path", "the file, relative to /workspace or absolute")],
        vec![example(
            "what's in shopping.txt?",
            json!({"path": "shopping.txt"}),
            Told::data("buy milk"),
            "It says: buy milk.",
        )],
    )
}

fn fetch_url() -> Tool {
    tool(
        FETCH_URL,
        "Fetches a web page and gives back its text.",
        &[("url", "the address, with https://")],
        vec![example(
            "what does https://example.com say?",
            json!({"url": "https://example.com"}),
            Told::data("HTTP status 200\nExample Domain"),
            "It is a page with the title Example Domain.",
        )],
    )
}

/// A tool whose arguments are all texts, and all needed.
fn tool(name: &str, description: &str, fields: &[(&str, &str)], examples: Vec<Example>) -> Tool {
    let properties: serde_json::Map<String, Value> = fields
        .iter()
        .map(|(field, what)| ((*field).to_owned(), json!({"type": "string", "description": what})))
        .collect();
    let required: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
    Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        }),
        examples,
    }
}

fn example(request: &str, arguments: Value, result: Told, reply: &str) -> Example {
    Example {
        request: request.to_owned(),
        arguments,
        result: result.shown(),
        reply: reply.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_fit_their_schemas() {
        for tool in all(true) {
            assert!(!tool.examples.is_empty());
            for example in &tool.examples {
                let fields = |value: &Value| -> Vec<String> {
                    value.as_object().unwrap().keys().cloned().collect()
                };
                assert_eq!(fields(&example.arguments), fields(&tool.parameters["properties"]));
            }
        }
        let size = serde_json::to_string(&all(true)).unwrap().len();
        assert!(size < 5000, "{size} bytes are a lot for a context of 4096 tokens");
    }
}
