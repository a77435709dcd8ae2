import { logIn, type Session } from "./ask.ts";
import { element, field } from "./dom.ts";

/** Where an operator's token becomes a cookie. */

export function loginView(onSession: (session: Session) => void): HTMLElement {
  const input = element("input", {
    ...{ type: "password", name: "token", autocomplete: "off", required: true },
    ...{ autofocus: true, spellcheck: "false" },
  });
  const wrong = element("p", { class: "wrong", role: "alert" });
  const submit = element("button", { type: "submit", class: "main" }, "Log in");
  const enter = async () => {
    submit.disabled = true;
    try {
      onSession(await logIn(input.value.trim()));
    } catch (error) {
      wrong.textContent = (error as Error).message;
    } finally {
      submit.disabled = false;
    }
  };
  const form = element(
    "form",
    {
      class: "login panel",
      on: {
        submit: (event) => {
          event.preventDefault();
          void enter();
        },
      },
    },
    element("h1", {}, "Log in"),
    field("Operator's token", input, "hostler identity operator add NAME --role operate"),
    wrong,
    submit,
  );
  return form;
}
