// What a program in a box can see and do: attempted escapes, with the real agent, through the SDK.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { hostname, tmpdir } from 'node:os'
import { beforeAll, expect, test } from 'vitest'
import { boxOver, eventually, runtimeOver } from '../support/boxes.js'
import { makeFolder } from '../support/folder.js'
import { program } from '../support/qemu.js'
import { descendantsOf, mountsHere, traceOf } from '../support/traces.js'

const isRoot = process.getuid?.() === 0

/** Tries one thing by number and says what errno it met, or that it went through. */
const PROBE = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#define TRY(name, call) do { errno = 0; long r = (long)(call); \\
  printf("%s %s\\n", name, r < 0 ? strerrorname_np(errno) : "OK"); } while (0)
int main(void) {
  char buffer[64] = {0};
  TRY("unshare(user)", unshare(CLONE_NEWUSER));
  TRY("unshare(mount)", unshare(CLONE_NEWNS));
  TRY("unshare(net)", unshare(CLONE_NEWNET));
  TRY("clone(user)", syscall(SYS_clone, CLONE_NEWUSER, 0, 0, 0, 0));
  TRY("clone3", syscall(SYS_clone3, buffer, 64));
  TRY("setns", setns(0, 0));
  TRY("mount", mount("none", "/tmp", "tmpfs", 0, 0));
  TRY("umount", umount2("/proc", MNT_DETACH));
  TRY("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
  TRY("chroot", chroot("/tmp"));
  TRY("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
  TRY("move_mount", syscall(SYS_move_mount, 0, "", 0, "", 4));
  TRY("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, buffer, 32));
  TRY("keyctl", syscall(SYS_keyctl, 0, -3, 1));
  TRY("add_key", syscall(SYS_add_key, "user", "k", "v", 1, -3));
  TRY("request_key", syscall(SYS_request_key, "user", "k", 0, 0));
  TRY("bpf", syscall(SYS_bpf, 0, buffer, 48));
  TRY("perf_event_open", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
  TRY("userfaultfd", syscall(SYS_userfaultfd, 1));
  TRY("io_uring_setup", syscall(SYS_io_uring_setup, 1, buffer));
  TRY("init_module", syscall(SYS_init_module, buffer, 0, ""));
  TRY("finit_module", syscall(SYS_finit_module, 0, "", 0));
  TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
  TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0));
  TRY("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0));
  TRY("swapon", syscall(SYS_swapon, "/x", 0));
  TRY("settimeofday", syscall(SYS_settimeofday, buffer, 0));
  TRY("syslog", syscall(SYS_syslog, 3, buffer, 64));
  TRY("ptrace", ptrace(PTRACE_ATTACH, 1, 0, 0));
  TRY("process_vm_readv", syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0));
  TRY("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
  TRY("socket(vsock)", socket(40, SOCK_STREAM, 0));
  TRY("socket(alg)", socket(38, SOCK_SEQPACKET, 0));
  TRY("socket(packet)", socket(17, SOCK_RAW, 0));
  TRY("call newer than the list", syscall(453 + 9, 0, 0, 0, 0));
  TRY("ioctl(TIOCSTI)", ioctl(0, TIOCSTI, "x"));
  TRY("mknod(block)", mknod("/tmp/block", S_IFBLK | 0600, makedev(8, 0)));
  TRY("mknod(char)", mknod("/tmp/char", S_IFCHR | 0600, makedev(1, 1)));
  return 0;
}
`
/** Compiled on the host, or undefined where it has no compiler. */
let probe: string | undefined

beforeAll(async () => {
  const { mkdtempSync, rmSync } = await import('node:fs')
  const folder = mkdtempSync(`${tmpdir()}/sluicebox-test-`)
  writeFileSync(`${folder}/probe.c`, PROBE)
  const { code } = await program('cc', ['-o', `${folder}/probe`, `${folder}/probe.c`])
  if (code === 0) probe = readFileSync(`${folder}/probe`).toString('base64')
  return () => rmSync(folder, { recursive: true, force: true })
})

test('S1: a process has exactly the descriptors 0, 1 and 2, though the host has others without CLOEXEC', async () => {
  const code = `
    import { Runtime } from '${new URL('../../dist/index.js', import.meta.url).href}'
    import { readdirSync } from 'node:fs'
    const runtime = new Runtime({ home: process.argv[1] })
    const box = await runtime.create()
    const { stdout } = await box.shell('ls /proc/$$/fd; readlink /proc/self/cwd')
    console.log(JSON.stringify({ stdout, own: readdirSync('/proc/self/fd') }))
    await runtime.close()`
  const args = [process.execPath, '--input-type=module', '-e', code, '--', makeFolder()('home')]
  const { stdout } = await program('sh', ['-c', 'exec 8>/dev/null 9</etc/passwd; exec "$0" "$@"', ...args])
  const seen = JSON.parse(stdout)
  expect(seen.own).toEqual(expect.arrayContaining(['8', '9']))
  expect(seen.stdout).toBe('0\n1\n2\n/')
})

test('S2: capabilities are the documented minimum for root, none for others, and cannot be regained', async () => {
  const box = await boxOver('passed')
  const status = async (user?: number) => (await box.run(['cat', '/proc/self/status'], { user })).stdout
  const of = (text: string, name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(text)?.[1]
  const root = await status()
  expect(of(root, 'NoNewPrivs')).toBe('1')
  expect(of(root, 'Seccomp')).toBe('2')
  // SYS_ADMIN (21), SYS_MODULE (16), SYS_PTRACE (19), NET_ADMIN (12), SYS_RAWIO (17), MKNOD (27), SYS_BOOT (22).
  const forbidden = [12, 16, 17, 19, 21, 22, 27].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
  for (const name of ['CapPrm', 'CapEff', 'CapBnd', 'CapInh', 'CapAmb'])
    expect(BigInt(`0x${of(root, name)}`) & forbidden, name).toBe(0n)
  if (!isRoot) return
  const other = await status(1234)
  for (const name of ['CapPrm', 'CapEff', 'CapInh', 'CapAmb']) expect(BigInt(`0x${of(other, name)}`), name).toBe(0n)
  // A setuid file gains nothing.
  await box.shell('cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id', { check: true })
  expect((await box.run(['/tmp/id', '-u'], { user: 1234 })).stdout).toBe('1234')
})

test('S3, S7, S11, S45: every call that leads out is refused', async ({ skip }) => {
  if (!probe) return skip('this host has no C compiler')
  for (const user of isRoot ? [undefined, 1234] : [undefined]) {
    const box = await boxOver('passed')
    await box.shell('base64 -d > /tmp/probe && chmod 755 /tmp/probe', { input: probe, check: true })
    const { stdout } = await box.run(['/tmp/probe'], { user })
    const answers = stdout
      .split('\n')
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), line.slice(line.lastIndexOf(' ') + 1)])
    expect(answers.length).toBe(38)
    for (const [what, answer] of answers)
      expect(what?.startsWith('mknod') ? ['EPERM', 'EACCES'] : ['EPERM', 'ENOSYS'], `${what}: ${answer}`).toContain(
        answer,
      )
  }
})

test('S4: root in the box is nobody’s root outside, and setgroups is denied where one id is mapped', async () => {
  const box = await boxOver('passed')
  const { first } = traceOf(box.id)
  const uid = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${first.pid}/status`, 'utf8'))?.[1]
  if (isRoot) expect(Number(uid)).toBeGreaterThan(65_535)
  else {
    expect(Number(uid)).toBe(process.getuid?.())
    expect(readFileSync(`/proc/${first.pid}/setgroups`, 'utf8')).toBe('deny\n')
  }
  expect((await box.run(['id', '-u'])).stdout).toBe('0')
  const sleep = await box.exec(['sleep', '1000'])
  const outside = descendantsOf(first.pid).find(({ name }) => name === 'sleep')
  expect(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${outside?.pid}/status`, 'utf8'))?.[1]).toBe(uid)
  await sleep.kill('SIGKILL')
})

test('S5: the box sees its own processes only', async () => {
  const box = await boxOver('passed')
  const pids = (await box.shell('ls /proc | grep "^[0-9]"')).stdout.split('\n').map(Number)
  expect(pids).toContain(1)
  expect(pids.length).toBeLessThan(8)
  expect((await box.run(['cat', `/proc/${process.pid > 100 ? process.pid : 99_999}/cmdline`])).ok).toBe(false)
})

test('S6: what tells of or steers the kernel is masked or read-only', async () => {
  const box = await boxOver('passed')
  for (const file of ['/proc/kcore', '/proc/keys', '/proc/sysrq-trigger', '/proc/timer_list', '/proc/sched_debug']) {
    const { stdout } = await box.shell(`head -c 16 ${file} 2>/dev/null | wc -c`)
    expect(stdout.trim(), file).toBe('0')
  }
  expect((await box.shell('ls /sys/firmware 2>/dev/null | wc -l')).stdout.trim()).toBe('0')
  const files = [
    '/proc/sys/kernel/core_pattern',
    '/proc/sys/kernel/modprobe',
    '/proc/sys/kernel/hostname',
    '/proc/sysrq-trigger',
    '/sys/kernel/uevent_helper',
    '/proc/sys/fs/binfmt_misc/register',
    '/proc/irq/default_smp_affinity',
  ]
  for (const file of files) {
    const { stdout } = await box.shell(`(echo x > ${file}) 2>/dev/null && echo WRITTEN || echo refused`)
    expect(stdout, file).toBe('refused')
  }
  expect(
    (await box.shell('find / -xdev -name release_agent 2>/dev/null; ls /sys/fs/cgroup 2>/dev/null | head -3')).stdout,
  ).not.toContain('release_agent')
})

test('S7: neither .. nor a directory of /proc leads out of the root', async () => {
  const outside = makeFolder()
  writeFileSync(outside('secret'), 'of the host')
  const box = await boxOver('passed')
  for (const path of ['/..', '/../../..', '/proc/1/root', '/proc/self/root/..', '/proc/1/cwd', '/proc/self/cwd/..']) {
    const { stdout } = await box.shell(`cat ${path}${outside('secret')} 2>/dev/null; ls ${path} 2>/dev/null | head -40`)
    expect(stdout, path).not.toContain('of the host')
  }
  expect((await box.run(['cat', '/proc/self/mountinfo'])).stdout).not.toMatch(/old_?root|put_?old/)
})

test('S8: no mount of the host shows in a box, and none of a box on the host', async () => {
  const before = mountsHere()
  const box = await boxOver('passed')
  expect(mountsHere()).toEqual(before)
  expect((await box.run(['cat', '/proc/self/mountinfo'])).stdout).not.toMatch(/\b(shared|master|propagate_from):/)
})

test('S11: /dev has what programs need, and nothing else', async () => {
  const box = await boxOver('passed')
  const names = (await box.run(['ls', '/dev'])).stdout.split('\n')
  const known = [
    'fd',
    'full',
    'null',
    'ptmx',
    'pts',
    'random',
    'shm',
    'stderr',
    'stdin',
    'stdout',
    'tty',
    'urandom',
    'zero',
  ]
  expect(names.filter((name) => !known.includes(name))).toEqual([])
  expect(names).toEqual(expect.arrayContaining(['null', 'zero', 'urandom', 'pts']))
  expect((await box.shell('head -c 4 /dev/urandom | wc -c; echo x > /dev/full')).stdout.trim()).toBe('4')
})

test('S12: of the host there are programs and libraries, no secrets and no places of its users', async () => {
  const outside = makeFolder()
  writeFileSync(outside('secret'), 'of the host')
  const runtime = runtimeOver('passed')
  const box = await runtime.create()
  expect((await box.run(['test', '-x', '/usr/bin/env'])).ok).toBe(true)
  const hidden = [
    '/etc/shadow',
    '/etc/gshadow',
    '/etc/ssh/ssh_host_ed25519_key',
    '/etc/sudoers',
    outside('secret'),
    runtime.home,
    '/run/docker.sock',
    '/run/systemd',
    '/root/.ssh',
    '/root/.bashrc',
    '/var/run/docker.sock',
    '/boot/vmlinuz',
    process.env.HOME ?? '/root',
    import.meta.filename,
  ]
  for (const path of hidden) {
    const { stdout } = await box.shell(
      `if [ -d '${path}' ]; then ls -A '${path}'; elif [ -e '${path}' ]; then echo there; fi`,
    )
    expect(stdout, path).toBe('')
  }
  expect((await box.shell('ls -A /home /tmp /run /mnt /media /srv 2>/dev/null | grep -v ":$" | grep .')).stdout).toBe(
    '',
  )
})

test('S13, S37: the network is loopback alone, and the host’s sockets, ipc and name are not the box’s', async () => {
  const name = `\0sluicebox-test-${process.pid}`
  const [abstract, tcp] = [createServer(), createServer()]
  abstract.listen({ path: name })
  tcp.listen(0, '127.0.0.1')
  await once(tcp, 'listening')
  const { port } = tcp.address() as { port: number }
  try {
    const box = await boxOver('passed')
    const links = (await box.run(['cat', '/proc/net/dev'])).stdout
      .split('\n')
      .slice(2)
      .map((line) => line.split(':')[0]?.trim())
    expect(links).toEqual(['lo'])
    expect((await box.run(['cat', '/proc/net/route'])).stdout.split('\n').length).toBe(1)
    expect((await box.run(['cat', '/proc/net/unix'])).stdout).not.toContain('sluicebox-test')
    expect((await box.run(['bash', '-c', `exec 3<>/dev/tcp/127.0.0.1/${port}`])).ok).toBe(false)
    expect((await box.run(['bash', '-c', 'exec 3<>/dev/tcp/1.1.1.1/53'])).ok).toBe(false)
    expect(
      (await box.shell('tail -n +2 /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg | grep -c "^ *[0-9]"')).stdout,
    ).toBe('0')
    expect((await box.run(['cat', '/proc/sys/kernel/hostname'])).stdout).not.toBe(hostname())
    for (const kind of ['net', 'ipc', 'uts', 'mnt', 'pid', 'user', 'cgroup'])
      expect((await box.run(['readlink', `/proc/self/ns/${kind}`])).stdout, kind).not.toBe(
        readlinkSync(`/proc/self/ns/${kind}`),
      )
  } finally {
    abstract.close()
    tcp.close()
  }
})

test('S14: executions can neither signal, trace, read nor replace the agent', async () => {
  const box = await boxOver('passed')
  const { first } = traceOf(box.id)
  for (const signal of ['KILL', 'TERM', 'STOP', 'SEGV', 'HUP', 'INT']) await box.run(['sh', '-c', `kill -${signal} 1`])
  for (const script of [
    'cat /proc/1/mem | head -c 1',
    'head -c 1 /proc/1/environ',
    'readlink /proc/1/fd/3',
    'cat /proc/1/maps',
    'cat /proc/1/fd/3',
    'echo x > /proc/1/exe',
    'echo x > /proc/1/mem',
    'echo 1000 > /proc/1/oom_score_adj',
  ])
    expect((await box.shell(`${script} 2>/dev/null`)).stdout, script).toBe('')
  expect(
    (await box.shell('head -c 4 /proc/1/exe > /tmp/agent 2>/dev/null; cat /proc/1/status | grep ^State')).stdout,
  ).not.toContain('T (')
  expect((await box.run(['echo', 'here'])).stdout).toBe('here')
  expect(traceOf(box.id).first).toMatchObject({ pid: first.pid, start: first.start })
})

test('S22: orphans are reaped, and the end of a box ends them', async () => {
  const box = await boxOver('passed')
  await box.shell('for n in 1 2 3 4 5; do (setsid sleep 0.05 &) ; done', { check: true })
  const { first } = traceOf(box.id)
  await eventually(
    () => descendantsOf(first.pid),
    (left) => left.length === 0,
    'every orphan to be reaped',
  )
  await box.shell('(setsid sleep 1000 >/dev/null 2>&1 &)', { check: true })
  const [orphan] = await eventually(
    () => descendantsOf(first.pid),
    ([one]) => one?.name === 'sleep',
    'the orphan to run',
  )
  await box.stop({ force: true })
  await eventually(
    () => existsSync(`/proc/${orphan?.pid}`),
    (there) => !there,
    'the orphan to be gone',
  )
})

test('S42: neither the host’s environment nor an execution’s shows in a command line, a file or the box', async () => {
  const [hosts, executions] = ['host-secret-7f3a', 'execution-secret-91bc']
  process.env.SLUICEBOX_TEST_SECRET = hosts
  try {
    const runtime = runtimeOver('passed')
    const box = await runtime.create({ name: 'web' })
    const sleep = await box.exec(['sleep', '1000'], { env: { TOKEN: executions } })
    expect((await box.shell('env; cat /proc/[0-9]*/environ 2>/dev/null | tr "\\0" "\\n"')).stdout).not.toContain(hosts)
    const trace = traceOf(box.id)
    for (const { pid } of trace.processes) {
      for (const secret of [hosts, executions])
        expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).not.toContain(secret)
    }
    for (const { pid } of [trace.keeper, trace.first]) expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toBe('')
    for (const entry of readdirSync(runtime.home, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const text = readFileSync(`${entry.parentPath}/${entry.name}`, 'utf8')
      for (const secret of [hosts, executions]) expect(text, entry.name).not.toContain(secret)
    }
    await sleep.kill('SIGKILL')
  } finally {
    delete process.env.SLUICEBOX_TEST_SECRET
  }
})

test('S43: the host process stays as it was: cwd, umask, signals, other children, descriptors’ flags', async () => {
  const state = () => ({
    cwd: process.cwd(),
    umask: process.umask(),
    signals: /^SigIgn:.*\n^SigCgt:.*$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[0],
    flags: [0, 1, 2].map((fd) => /^flags:.*$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[0]),
  })
  const child = spawn('sh', ['-c', 'read line; exit 7'], { stdio: ['pipe', 'ignore', 'ignore'] })
  const ended = once(child, 'exit')
  const before = state()
  const box = await boxOver('passed')
  await box.run(['true'])
  const broken = await box.exec(['head', '-c1'], { stdin: 'pipe' })
  await broken.stdin.write(Buffer.alloc(2 ** 21)).catch(() => {})
  await box.remove({ force: true })
  expect(state()).toEqual(before)
  child.stdin.end('\n')
  expect(await ended).toEqual([7, null])
  mkdirSync(makeFolder()('after'))
})
