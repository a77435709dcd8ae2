import type { LiveEvent } from "../protocol-operator.ts";
import { Refused } from "./ask.ts";
import { button, element, replace } from "./dom.ts";
import { follow } from "./live.ts";

/** What every view stands in: messages, dialogs, and the link to the orchestrator. */

export interface View {
  readonly title: string;
  readonly place: HTMLElement;
  readonly stop?: () => void;
}

export interface DialogOptions {
  readonly title: string;
  readonly content: readonly (HTMLElement | string)[];
  readonly action: string;
  readonly isDangerous?: boolean;
  act(): Promise<unknown>;
}

export class Shell {
  readonly #told: HTMLElement;
  readonly #link: HTMLElement;
  readonly #onLoggedOut: () => void;

  constructor(places: { told: HTMLElement; link: HTMLElement }, onLoggedOut: () => void) {
    this.#told = places.told;
    this.#link = places.link;
    this.#onLoggedOut = onLoggedOut;
  }

  /** Says what was refused; undefined where it was. */
  async attempt<Answer>(act: () => Promise<Answer>): Promise<Answer | undefined> {
    try {
      return await act();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.#onLoggedOut();
      else this.tell((error as Error).message);
      return undefined;
    }
  }

  tell(message: string): void {
    const close = button("Close", () => replace(this.#told), { class: "quiet" });
    replace(this.#told, element("div", { class: "message" }, element("p", {}, message), close));
  }

  follow(path: string, onEvent: (event: LiveEvent) => void): () => void {
    const stop = follow(path, {
      event: onEvent,
      state: (state) => {
        this.#link.className = state;
        this.#link.textContent = state === "live" ? "live" : "the orchestrator is away";
      },
      end: () => this.#onLoggedOut(),
    });
    return () => {
      stop();
      this.#link.textContent = "";
    };
  }

  /** Escape and Cancel close it; what is refused is told in it, and it stays open. */
  dialog({ title, content, action, isDangerous = false, act }: DialogOptions): void {
    const wrong = element("p", { class: "wrong", role: "alert" });
    const submit = element(
      "button",
      { type: "submit", class: isDangerous ? "danger" : "main" },
      action,
    );
    const carryOut = async () => {
      submit.disabled = true;
      try {
        await act();
        dialog.close();
      } catch (error) {
        wrong.textContent = (error as Error).message;
        submit.disabled = false;
      }
    };
    const form = element(
      "form",
      {
        on: {
          submit: (event) => {
            event.preventDefault();
            void carryOut();
          },
        },
      },
      element("h2", { id: "dialog-title" }, title),
      ...content,
      wrong,
      element(
        "div",
        { class: "actions" },
        button("Cancel", () => dialog.close()),
        submit,
      ),
    );
    const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, form);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }
}
