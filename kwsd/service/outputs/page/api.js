// Requests to the daemon. Where it wants its token, a dialog asks for it, and the request is made again.

const dialog = document.getElementById("login");

async function request(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  return fetch(path, options);
}

async function logIn() {
  const [input, problem] = [dialog.querySelector("input"), dialog.querySelector("[role=alert]")];
  problem.textContent = "";
  for (;;) {
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "ok") throw new Error("this needs the token of kwsd");
    const answer = await request("POST", "/api/session", { token: input.value.trim() });
    input.value = "";
    if (answer.ok) return;
    problem.textContent = answer.status === 401 ? "This is not the token." : `${answer.status}: try again later.`;
  }
}

let loggingIn = null; // shared by requests that were refused together

/** Make a request; the answer's JSON, or null if it has none. */
export async function call(method, path, body) {
  let answer = await request(method, path, body);
  if (answer.status === 401) {
    loggingIn ??= logIn().finally(() => (loggingIn = null));
    await loggingIn;
    answer = await request(method, path, body);
  }
  if (answer.status === 204) return null;
  const isJson = answer.headers.get("content-type")?.startsWith("application/json");
  const result = isJson ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(result.error ?? answer.statusText);
  return result;
}
