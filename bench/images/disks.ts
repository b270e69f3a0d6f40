// The disks that the figures of images are taken from. Made once a suite, of bytes that do not depend on the run.
import { open } from 'node:fs/promises'

const MIB = 2 ** 20
const CLUSTER = 64 * 1024

/** The same numbers each time: what is compressed should not differ from run to run. */
function randomBytes(length: number, seed: number): Buffer {
  const words = new Uint32Array(length / 4)
  let state = seed >>> 0 || 1
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  return Buffer.from(words.buffer)
}

/** Lines as a log has them: words from a vocabulary, numbers, times. */
function text(length: number, seed: number): Buffer {
  const random = randomBytes(64 * 1024, seed)
  const words = Array.from({ length: 2000 }, (_, n) =>
    randomBytes(8, n + 1)
      .toString('base64url')
      .slice(0, 3 + (n % 8)),
  )
  const parts: string[] = []
  for (let [bytes, n] = [0, 0]; bytes < length; n++) {
    const pick = (i: number) => words[random.readUInt16LE((n * 14 + i * 2) % 65_534) % words.length]
    const line = `${1_700_000_000 + n * 3} ${pick(0)} ${pick(1)}[${n % 977}]: ${pick(2)} ${pick(3)} ${pick(4)} ${pick(5)}\n`
    parts.push(line)
    bytes += line.length
  }
  return Buffer.from(parts.join('')).subarray(0, length)
}

export type Content = 'random' | 'text' | 'half'

/** A raw disk without holes. Each MiB differs from the others; in 'half' every other cluster is random. */
export async function makeRaw(path: string, mib: number, content: Content): Promise<void> {
  const noise = randomBytes(MIB, 7)
  await using file = await open(path, 'w')
  for (let n = 0; n < mib; n++) {
    const bytes = content === 'random' ? Buffer.from(noise) : text(MIB, n % 16)
    if (content === 'half') for (let at = 0; at < MIB; at += 2 * CLUSTER) noise.copy(bytes, at, at, at + CLUSTER)
    for (let at = 0; at < MIB; at += CLUSTER) bytes.writeUInt32LE(n * 16 + at / CLUSTER + 1, at)
    await file.write(bytes, 0, MIB, n * MIB)
  }
}

/** Data and holes by turns, `bytes` each. */
export async function makeComb(path: string, mib: number, bytes: number): Promise<void> {
  const comb = Buffer.alloc(MIB)
  for (let at = 0; at < MIB; at += 2 * bytes) comb.fill(0x5a, at, at + bytes)
  await using file = await open(path, 'w')
  for (let n = 0; n < mib; n++) await file.write(comb, 0, MIB, n * MIB)
}
