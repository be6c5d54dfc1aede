// What a terminal may be sent. Text of models and names in files of others can hold sequences that move the cursor, rename
// the window or answer for the user.

/** Colours and styles as picocolors writes them; none of them hides text. */
const STYLE = String.raw`\u001b\[(?:[0-24-7]|2[2-9]|3\d|4\d|9\d|10[0-7])m`
const CONTROLS = new RegExp(`${STYLE}|[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]`, 'g')

/** A text with control characters replaced by U+FFFD, but for line breaks, tabs and colours; `\r\n` is `\n`. */
export const forTerminal = (text: string): string =>
  text.replaceAll('\r\n', '\n').replace(CONTROLS, (found) => (found.length > 1 ? found : '\ufffd'))

/** Writes a text: as it is to files and pipes, as `forTerminal` has it to terminals. */
export function writeText(stream: NodeJS.WriteStream, text: string): void {
  stream.write(stream.isTTY ? forTerminal(text) : text)
}
