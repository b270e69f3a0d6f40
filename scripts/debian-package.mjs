// Debian packages that are downloaded and unpacked beside the build, never installed. Needs apt and a network, and no rights.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { attempt, capture } from './shell.mjs'

/** What this system lacks for it, or undefined. */
export function missingForPackages() {
  const tool = ['apt-get', 'apt-cache', 'dpkg-deb'].find((name) => capture(name, ['--version']).code !== 0)
  return tool && `this system has no ${tool}`
}

/** Into `folder`; whether it could. */
export function downloadPackage(name, folder) {
  // Else apt warns that its own user cannot write here. What it says is no part of a script's output.
  const options = process.getuid() === 0 ? ['-o', 'APT::Sandbox::User=root'] : []
  return attempt('apt-get', ['-q', ...options, 'download', name], { cwd: folder, stdio: ['ignore', 2, 2] }) === 0
}

/** A stale list names a package that the server has no more. Only root can renew it; whether it was tried. */
export function renewLists() {
  if (process.getuid() !== 0) return false
  attempt('apt-get', ['update', '-q'], { stdio: ['ignore', 2, 2] })
  return true
}

/** All that were downloaded into `folder`, into `tree`; the file that could not be unpacked, or undefined. */
export function unpackPackages(folder, tree) {
  const files = readdirSync(folder).filter((name) => name.endsWith('.deb'))
  return files.find((name) => attempt('dpkg-deb', ['-x', join(folder, name), tree]) !== 0)
}
