// The names of a chain's images as they read from where the command was called.
import type { ImageInfo } from '../../image-types.js'

export interface Named {
  readonly name: string
  readonly image: ImageInfo
}

export function nameChain(file: string, chain: readonly ImageInfo[]): Named[] {
  let name = file
  return chain.map((image) => {
    const each = { name, image }
    if (image.backing) name = beside(name, image.backing.path)
    return each
  })
}

/** A path that the image at `image` records, as it reads from here. */
export function beside(image: string, path: string): string {
  return path.startsWith('/') ? path : image.slice(0, image.lastIndexOf('/') + 1) + path
}
