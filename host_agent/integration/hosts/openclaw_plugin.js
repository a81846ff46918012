// Written by `host-agent integrate openclaw`; `host-agent integrate openclaw --remove` removes it.
// Asks `host-agent hook openclaw` before each command. Whatever goes wrong blocks the command.
import { spawn } from "node:child_process";

const WORDS = @WORDS@;
const LIMIT_MS = @MILLISECONDS@;
const TOOLS = new Set(["exec", "bash", "process"]);

function blocked(reason) {
  return { block: true, blockReason: `host-agent: nothing was run. ${reason}` };
}

function judged(status, output, errors) {
  if (status !== 0) return blocked(errors.trim() || `The hook ended with ${status}.`);
  let answer;
  try {
    answer = JSON.parse(output);
  } catch {
    return blocked("The hook's answer is not JSON.");
  }
  if (answer === null || typeof answer !== "object" || Array.isArray(answer)) {
    return blocked("The hook's answer is no object.");
  }
  if (Object.keys(answer).length === 0) return undefined;
  return { block: true, blockReason: String(answer.blockReason || "host-agent: denied.") };
}

function ask(event) {
  return new Promise((resolve) => {
    let child;
    const end = (answer) => {
      clearTimeout(timer);
      resolve(answer);
    };
    const timer = setTimeout(() => {
      child?.kill("SIGKILL");
      resolve(blocked("The hook took too long."));
    }, LIMIT_MS);
    try {
      child = spawn(WORDS[0], WORDS.slice(1), { stdio: ["pipe", "pipe", "pipe"] });
      let output = "";
      let errors = "";
      child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
      child.stderr.setEncoding("utf8").on("data", (text) => (errors += text));
      child.on("error", (error) => end(blocked(String(error.message))));
      child.on("close", (status, signal) => end(judged(status ?? signal, output, errors)));
      child.stdin.on("error", () => {});
      child.stdin.end(JSON.stringify({ toolName: event.toolName, params: event.params }));
    } catch (error) {
      end(blocked(String(error)));
    }
  });
}

export default {
  id: "host-agent-guard",
  name: "host-agent guard",
  register(api) {
    const handler = (event) => (TOOLS.has(event.toolName) ? ask(event) : undefined);
    api.on("before_tool_call", handler, { priority: 1000, timeoutMs: LIMIT_MS + 1000 });
  },
};
