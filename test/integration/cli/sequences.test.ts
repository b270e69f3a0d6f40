// The same random calls to `sluicebox image` and to qemu-img: after each, both images read the same and are sound.
import { expect, test } from 'vitest'
import { pairOfFolders } from '../../support/cli.js'
import { seeded } from '../../support/producer.js'
import { program, qemuImg } from '../../support/qemu.js'

const KIB = 1024
/** A multiple of every cluster size. */
const WHOLE = 2048 * KIB
const isLong = process.env.SLUICEBOX_LONG === '1'
/** The same calls every time, but for the long run, which looks for what nobody has seen. */
const SEED = Number(process.env.SLUICEBOX_TEST_SEED ?? (isLong ? Date.now() % 1_000_000 : 1))
const STEPS = isLong ? 300 : 15

const qcow2Options = [
  '',
  'cluster_size=512',
  'cluster_size=4k,refcount_bits=8',
  'cluster_size=2M',
  'compat=0.10',
  'lazy_refcounts=on',
  'compression_type=zstd',
  'refcount_bits=64',
  'extended_l2=on',
  'extended_l2=on,cluster_size=16k',
]

interface Image {
  readonly name: string
  readonly format: string
  /** In bytes. */
  size: number
  backing: string | null
  readonly snapshots: string[]
  /** Snapshots and overlays are of qcow2, where no option rules them out. */
  readonly options: string
}

class Sequence {
  readonly #pair = pairOfFolders()
  readonly #random: () => number
  readonly #log: string[] = []
  #image!: Image
  #names = 0

  constructor(seed: number) {
    this.#random = seeded(seed)
  }

  async start(format: string): Promise<void> {
    await this.#pair.prepare('create', '-q', '-f', 'qcow2', 'a.img', '3M')
    await this.#pair.write('a.img', 'write -P 0x0a 0 700k', 'write -P 0x0b 2M 300k')
    await this.#pair.prepare('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', 'b.img', '5M')
    await this.#pair.write('b.img', 'write -P 0x0a 300k 900k', 'write -z 2100k 64k', 'write -P 0x0c 4M 1M')
    await this.#create(format)
  }

  async step(): Promise<void> {
    const { format, options, snapshots } = this.#image
    const steps = [this.#write, this.#write, this.#zero, this.#convert]
    if (format === 'qcow2') {
      // With snapshots inside ours refuses these: what a snapshot reads would change.
      if (snapshots.length === 0) steps.push(this.#rebase, this.#rebase, this.#commit)
      steps.push(this.#resize)
      if (!options.includes('refcount_bits=8')) steps.push(this.#snapshot, this.#snapshot)
    }
    await this.#pick(steps).call(this)
    await this.#compare()
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.#random() * choices.length)] as T
  }
  /** In whole sectors, both. */
  #range(): { at: number; length: number } {
    const sectors = Math.floor(this.#image.size / 512)
    const at = Math.floor(this.#random() * sectors)
    const length = 1 + Math.floor(this.#random() ** 3 * Math.min(sectors - at, 2400))
    return { at: at * 512, length: Math.min(length, sectors - at) * 512 }
  }
  #fresh(): string {
    return `image${this.#names++}`
  }

  /** Both programs end alike, and say the same unless they refuse. */
  async #both(...args: string[]): Promise<boolean> {
    this.#log.push(args.join(' '))
    const { ours, theirs } = await this.#pair.run(...args)
    expect(ours.code, this.#said(ours.stderr || theirs.stderr)).toBe(theirs.code)
    if (theirs.code === 0) expect(ours.stdout, this.#said('its output')).toBe(theirs.stdout)
    return theirs.code === 0
  }

  async #compare(): Promise<void> {
    const { name, format } = this.#image
    const { ours, theirs } = this.#pair.folders
    const same = await program('qemu-img', [
      'compare',
      '-f',
      format,
      '-F',
      format,
      `${ours}/${name}`,
      `${theirs}/${name}`,
    ])
    expect(same, this.#said('their content')).toMatchObject({ code: 0, stdout: 'Images are identical.\n' })
    // qemu-img has no checks for the others.
    if (format !== 'vpc' && format !== 'raw') {
      const { code, stdout } = await program('qemu-img', ['check', '-f', format, `${ours}/${name}`])
      expect(code, this.#said(stdout)).toBe(0)
    }
  }
  #said(what: string): string {
    return `${what}\n${this.#log.join('\n')}\n`
  }

  async #create(format: string): Promise<void> {
    const name = this.#fresh()
    const options = format === 'qcow2' ? this.#pick(qcow2Options) : format === 'vpc' ? 'force_size=on' : ''
    const backing = format === 'qcow2' ? this.#pick(['a.img', 'b.img', null]) : null
    const size = this.#pick([2 * WHOLE, 3 * WHOLE, (2048 + Math.floor(this.#random() * 4096)) * KIB])
    const over = backing ? ['-b', backing, '-F', 'qcow2'] : []
    const with_ = options ? ['-o', options] : []
    this.#image = { name, format, size, backing, snapshots: [], options }
    expect(
      await this.#both('create', '-q', '-f', format, ...over, ...with_, name, String(size)),
      this.#said('create'),
    ).toBe(true)
  }

  async #io(command: string): Promise<void> {
    this.#log.push(command)
    const { format, name } = this.#image
    for (const folder of Object.values(this.#pair.folders)) {
      const { stdout, stderr } = await program('qemu-io', ['-f', format, '-c', command, `${folder}/${name}`])
      expect(stdout + stderr, this.#said(folder)).not.toMatch(/error|failed|abort/i)
    }
  }
  async #write(): Promise<void> {
    const { at, length } = this.#range()
    await this.#io(`write -P ${1 + Math.floor(this.#random() * 250)} ${at} ${length}`)
  }
  async #zero(): Promise<void> {
    const { at, length } = this.#range()
    await this.#io(`${this.#pick(['write -z', 'write -z -u', 'write -P 0'])} ${at} ${length}`)
  }

  async #snapshot(): Promise<void> {
    const { name, snapshots } = this.#image
    const some = this.#pick([...snapshots, 'none'])
    const what = this.#pick(['-c', '-a', '-d'])
    const tag = what === '-c' ? `s${this.#names++}` : some
    if (!(await this.#both('snapshot', what, tag, name))) return
    if (what === '-c') snapshots.push(tag)
    if (what === '-d') snapshots.splice(snapshots.indexOf(tag), 1)
    await this.#readSize()
  }

  async #rebase(): Promise<void> {
    const { options, backing: old } = this.#image
    // QEMU's, of version 2 without a base, shows the new base.
    if (old === null && options === 'compat=0.10') return
    const backing = this.#pick(['a.img', 'b.img', ''])
    const format = backing ? ['-F', 'qcow2'] : []
    if (await this.#both('rebase', '-b', backing, ...format, this.#image.name)) this.#image.backing = backing || null
  }

  async #resize(): Promise<void> {
    const { name, size } = this.#image
    // Of a disk that ends inside a cluster QEMU's shows, once larger, what lay there or in the base; ours shows zeros.
    const grow = size % WHOLE === 0 && this.#random() < 0.6
    const sectors = (bytes: number) => Math.floor((this.#random() * bytes) / 512) * 512
    const shorter = [sectors(size), WHOLE, 2 * WHOLE].filter((bytes) => bytes > 0 && bytes < size)
    if (!grow && shorter.length === 0) return
    const to = grow ? size + sectors(1500 * KIB) : this.#pick(shorter)
    const space = this.#pick(['off', 'off', 'metadata', 'falloc', 'full'])
    await this.#both('resize', grow ? `--preallocation=${space}` : '--shrink', name, String(to))
    await this.#readSize()
  }

  async #commit(): Promise<void> {
    if (!(await this.#both('commit', this.#image.name))) return
    // The bases are as they were written to, in both folders alike.
    const [ours, theirs] = Object.values(this.#pair.folders)
    for (const base of ['a.img', 'b.img']) {
      expect(await qemuImg('compare', `${ours}/${base}`, `${theirs}/${base}`), this.#said(base)).toMatch(/identical/)
    }
  }

  async #convert(): Promise<void> {
    const from = this.#image
    const format = this.#pick(['qcow2', 'qcow2', 'qcow2', 'vmdk', 'vpc', 'vhdx', 'raw'])
    const name = this.#fresh()
    const options = format === 'qcow2' ? this.#pick(qcow2Options) : format === 'vpc' ? 'force_size=on' : ''
    const packed = format === 'qcow2' && this.#random() < 0.3 ? ['-c'] : []
    const args = ['-f', from.format, '-O', format, ...packed, ...(options ? ['-o', options] : [])]
    if (!(await this.#both('convert', ...args, from.name, name))) return
    this.#image = { name, format, size: 0, backing: null, snapshots: [], options }
    await this.#readSize()
  }

  async #readSize(): Promise<void> {
    const { format, name } = this.#image
    const text = await qemuImg('info', '--output=json', '-f', format, `${this.#pair.folders.theirs}/${name}`)
    this.#image.size = (JSON.parse(text) as { 'virtual-size': number })['virtual-size']
  }
}

test.each([
  ['qcow2', 0],
  ['qcow2', 1],
  ['vmdk', 2],
  ['vhdx', 3],
] as const)('a random sequence of calls, begun with %s', async (format, n) => {
  const seed = SEED + n
  const sequence = new Sequence(seed)
  try {
    await sequence.start(format)
    for (let i = 0; i < STEPS; i++) await sequence.step()
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error })
  }
})
