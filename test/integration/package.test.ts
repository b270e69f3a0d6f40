// The package as npm would make it.
import { expect, test } from 'vitest'
import { program } from '../support/qemu.js'

test('npm refuses to pack a package that has no native half', async () => {
  const root = new URL('../../', import.meta.url).pathname
  const { code, stderr } = await program('npm', ['pack', '--dry-run'], root)
  expect(code).not.toBe(0)
  expect(stderr).toContain('prebuilds/linux-x64/sluicebox.node')
})
