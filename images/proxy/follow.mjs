// Follows the content of a file that is replaced by renaming.
import { readFileSync, watchFile } from "node:fs";

/**
 * Applies a file's text now, and after each change of it. If the file cannot be read or applied, that is logged, and
 * what was applied before stays.
 *
 * By polling, because inotify(7) loses a file that is renamed over, and a folder that is removed and made again.
 *
 * @param {string} path
 * @param {(text: string) => unknown} apply Throws, or returns a promise that is rejected, if the text is wrong.
 * @param {{info: Function, error: Function}} log
 */
export async function follow(path, apply, log) {
  let applied;
  const read = async () => {
    try {
      const text = readFileSync(path, "utf8");
      if (text === applied) return;
      await apply(text);
      applied = text;
      log.info("%s: applied", path);
    } catch (error) {
      log.error("%s: not applied, the former content stays: %s", path, error.message);
    }
  };
  await read();
  watchFile(path, { interval: 1_000 }, read);
}
