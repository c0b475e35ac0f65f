// Narrows for opencode: reports prompts, tool calls and sessions to the gateway through `narrows hook opencode`, and
// lets each command of opencode's shell name the tool call that it belongs to. Written by `narrows connect opencode`.
//
// A deny of the gateway blocks by an error, which is what opencode gives its model to read. While the gateway cannot be
// reached, `narrows hook` itself decides (--fail-closed); this file decides the same way where `narrows` cannot run.

import { spawn } from "node:child_process"

const HOOK = ["narrows", "hook", "opencode"]
const ENVIRONMENT = {}
const FAIL_CLOSED = HOOK.includes("--fail-closed")
const TIMEOUT_MS = 8000
const SESSION_EVENTS = new Set([
  "session.created", "session.updated", "session.idle", "session.error", "session.deleted", "session.compacted",
])

function ask(payload) {
  return new Promise((resolve) => {
    const failed = (why) => resolve(FAIL_CLOSED ? { decision: "deny", reason: `narrows hook: ${why}` } : { decision: "allow" })
    let child
    try {
      child = spawn(HOOK[0], HOOK.slice(1), { stdio: ["pipe", "pipe", "ignore"] })
    } catch (error) {
      failed(String(error))
      return
    }
    let out = ""
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      failed("no answer in time")
    }, TIMEOUT_MS)
    child.on("error", (error) => {
      clearTimeout(timer)
      failed(String(error))
    })
    child.stdout.setEncoding("utf8")
    child.stdout.on("data", (piece) => {
      out += piece
    })
    child.stdin.on("error", () => {})
    child.on("close", () => {
      clearTimeout(timer)
      try {
        resolve(JSON.parse(out))
      } catch {
        failed("no answer")
      }
    })
    child.stdin.end(JSON.stringify(payload))
  })
}

async function gate(payload) {
  const answer = await ask(payload)
  if (answer.decision !== "allow") {
    throw new Error(answer.reason || "refused by the gateway")
  }
}

function text(parts) {
  return (parts || []).filter((part) => part && part.type === "text" && !part.synthetic).map((part) => part.text).join("\n")
}

export const Narrows = async ({ directory }) => {
  const report = (name, session, fields) => ({ hook_event_name: name, session_id: session, cwd: directory, ...fields })
  return {
    "chat.message": async (input, output) => {
      const model = input.model ? `${input.model.providerID}/${input.model.modelID}` : undefined
      await gate(
        report("chat.message", input.sessionID, {
          prompt: text(output.parts),
          message_id: input.messageID || output.message?.id,
          mode: input.agent,
          model,
        }),
      )
    },
    "tool.execute.before": async (input, output) => {
      await gate(
        report("tool.execute.before", input.sessionID, {
          tool_name: input.tool,
          tool_input: output.args,
          tool_use_id: input.callID,
        }),
      )
    },
    "tool.execute.after": async (input, output) => {
      await ask(
        report("tool.execute.after", input.sessionID, {
          tool_name: input.tool,
          tool_input: input.args,
          tool_use_id: input.callID,
          tool_output: output.output,
          title: output.title,
        }),
      )
    },
    event: async ({ event }) => {
      if (!SESSION_EVENTS.has(event.type)) return
      const properties = event.properties || {}
      const session = properties.sessionID || properties.info?.id
      if (event.type === "session.updated" || !session) return
      await ask(report(event.type, session, { agent_version: properties.info?.version, properties: { error: properties.error } }))
    },
    "shell.env": async (input, output) => {
      Object.assign(output.env, ENVIRONMENT)
      // AWS takes 50 characters of these as the name of an application, and every SDK sends it with each call.
      const call = (input.callID || "").replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 50)
      if (call) output.env.AWS_SDK_UA_APP_ID = call
    },
  }
}
