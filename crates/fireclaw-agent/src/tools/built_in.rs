//! Our own tools, as the model is told of them.

use fireclaw_protocol::chat::{Example, Tool};
use serde_json::{Value, json};

pub const RUN_COMMAND: &str = "run_command";
pub const READ_FILE: &str = "read_file";
pub const WRITE_FILE: &str = "write_file";
pub const SAVE_MEMORY: &str = "save_memory";
pub const RECALL: &str = "recall";
pub const FETCH_URL: &str = "fetch_url";

/// All of them, the most useful first.
pub fn all(may_fetch: bool) -> Vec<Tool> {
    let mut tools = vec![run_command(), save_memory(), recall(), read_file(), write_file()];
    if may_fetch {
        tools.push(fetch_url());
    }
    tools
}

fn run_command() -> Tool {
    tool(
        RUN_COMMAND,
        "Runs a shell command on your machine, in /workspace, and gives back its output and exit status. Use it for every question about the machine: uptime, load, disk, memory, programs, the date. It has no input, a time limit, and nothing of it runs on afterwards.",
        &[("command", "the command, for /bin/sh -c")],
        vec![
            example(
                "what's your uptime?",
                json!({"command": "uptime -p"}),
                "up 2 hours, 13 minutes\nexit status: 0",
                "I have been up for 2 hours and 13 minutes.",
            ),
            example(
                "how much disk space is left?",
                json!({"command": "df -h /workspace"}),
                "Filesystem  Size  Used Avail Use% Mounted on\n/dev/vdb    4.0G  1.1G  2.9G  28% /workspace\nexit status: 0",
                "2.9 GB of 4.0 GB are free.",
            ),
        ],
    )
}

fn save_memory() -> Tool {
    tool(
        SAVE_MEMORY,
        "Remembers a fact for good. Use it when somebody asks you to remember something, or tells you what will matter later. The same name replaces what was saved before.",
        &[("name", "a short title"), ("text", "the fact, in full sentences")],
        vec![example(
            "remember that the deploy is on Friday",
            json!({"name": "deploy day", "text": "The deploy is on Friday."}),
            "Saved in memory/deploy-day.md.",
            "I will remember that the deploy is on Friday.",
        )],
    )
}

fn recall() -> Tool {
    tool(
        RECALL,
        "Searches what you saved and what was said here earlier, by words. Use it when somebody asks about something that you may have been told before.",
        &[("query", "the words to look for")],
        vec![example(
            "when is the deploy?",
            json!({"query": "deploy"}),
            "memory/deploy-day.md:\nThe deploy is on Friday.",
            "The deploy is on Friday.",
        )],
    )
}

fn read_file() -> Tool {
    tool(
        READ_FILE,
        "Reads a text file.",
        &[("path", "the file, relative to /workspace or absolute")],
        vec![example(
            "what's in notes.txt?",
            json!({"path": "notes.txt"}),
            "buy milk",
            "It says: buy milk.",
        )],
    )
}

fn write_file() -> Tool {
    tool(
        WRITE_FILE,
        "Writes a text file, in place of what it had before.",
        &[
            ("path", "the file, relative to /workspace or absolute"),
            ("content", "all that is to be in it"),
        ],
        vec![example(
            "write a hello world script in hello.sh",
            json!({"path": "hello.sh", "content": "#!/bin/sh\necho hello world\n"}),
            "Wrote 27 bytes to hello.sh.",
            "I wrote hello.sh; run it with sh hello.sh.",
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
            "HTTP status 200\nExample Domain",
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

fn example(request: &str, arguments: Value, result: &str, reply: &str) -> Example {
    Example {
        request: request.to_owned(),
        arguments,
        result: result.to_owned(),
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
