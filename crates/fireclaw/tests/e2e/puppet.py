# An agent program of the tests' own: it does what it is told, in JSON lines, so that
# what is tested is everything around it.
import json, os, subprocess, sys, time
def act(**action):
    print(json.dumps(action), flush=True)
waiting = {}
for line in sys.stdin:
    event = json.loads(line)
    kind = event["event"]
    if kind == "configure":
        config = event
        act(action="ready")
    elif kind == "approval":
        message = waiting.pop(event["ask"])
        act(action="say", message=message, text="granted" if event["granted"] else "refused: " + event["reason"])
        act(action="done", message=message)
    elif kind == "stop":
        act(action="say", message=event["message"], text="stopped")
        act(action="done", message=event["message"])
    elif kind == "thought":
        act(action="say", message=event["ask"], text=json.dumps(event["step"]))
        act(action="done", message=event["ask"])
    elif kind == "failed":
        act(action="done", message=event["ask"])
    elif kind == "message":
        number, text = event["id"], event["text"]
        word, _, rest = text.partition(" ")
        say = lambda what: act(action="say", message=number, text=what)
        if word == "echo":
            say(rest)
        elif word == "who":
            say("%s in %s%s after %d" % (event["from"], event["place"], " alone" if event["private"] else "", len(event["recent"])))
        elif word == "keep":
            open("/workspace/kept", "w").write(rest)
            os.sync()
            say("kept")
        elif word == "kept":
            say(open("/workspace/kept").read())
        elif word == "run":
            done = subprocess.run(rest, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            say("%d: %s" % (done.returncode, " | ".join(done.stdout.split("\n")).strip(" |")[-350:]))
        elif word == "persona":
            say(config["persona"])
        elif word == "lines":
            say("\n".join("line %d" % n for n in range(int(rest))))
        elif word == "items":
            say("\n".join("- item %d" % n for n in range(int(rest))))
        elif word == "big":
            say("\n".join("%05d " % n + "x" * 93 for n in range(int(rest) // 100)))
        elif word == "evil":
            say("one\r\nQUIT :gone\r\nPRIVMSG #agents :forged\x01\x02\x0304red\x1b[2J\x00\u202eend")
            print("this is no action")
            print('{"action": "say", "message": 999999, "text": "not mine"}', flush=True)
            print("x" * 1000000, flush=True)
            say("still here")
        elif word == "flood":
            for n in range(2000):
                say("flood %d" % n)
        elif word == "ask":
            waiting[number] = number
            act(action="approve", ask=number, message=number, tool="run_command", what=rest)
            continue
        elif word == "asktool":
            waiting[number] = number
            act(action="approve", ask=number, message=number, tool=rest, what="ls")
            continue
        elif word == "notes":
            for n in range(int(rest)):
                act(action="ready", notes=["note %d" % n])
        elif word == "think":
            act(action="think", ask=number, message=number, messages=[{"role": "user", "content": rest}], tools=[])
            continue
        elif word == "repeat":
            times, _, what = rest.partition(" ")
            say(what * int(times))
        elif word == "wait":
            while not os.path.exists("/workspace/go"):
                time.sleep(0.02)
            say("waited")
        elif word == "deaf":
            say("deaf now")
            time.sleep(100000)
        elif word == "hang":
            continue
        elif word == "die":
            os._exit(3)
        elif word == "to":
            say(rest)
        else:
            say("what?")
        act(action="done", message=number)
