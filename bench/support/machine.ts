// What a figure was measured on.
import { execFileSync } from 'node:child_process'
import { cpus, release, totalmem } from 'node:os'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGib: number
  readonly kernel: string
  readonly node: string
  readonly qemuImg: string
  readonly date: string
}

export function machine(): Machine {
  const all = cpus()
  return {
    cpu: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    qemuImg: qemuImgVersion(),
    date: new Date().toISOString(),
  }
}

function qemuImgVersion(): string {
  try {
    const [first] = execFileSync('qemu-img', ['--version'], { encoding: 'utf8' }).split('\n')
    return first?.replace('qemu-img version ', '') ?? 'unknown'
  } catch {
    return 'not installed'
  }
}
