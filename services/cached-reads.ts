import { ExpiringMap } from './expiring-map.ts'

/** Addresses that are remembered, and characters of one: what anybody may send must not fill the memory. */
const maxAddresses = 5000
const maxAddressLength = 256

export type CachedReads = ReturnType<typeof createCachedReads>

/** Which key of the cache an address stands for, by the address as it was sent and by what its sender may see. */
export function createCachedReads () {
  const keys = new ExpiringMap<string, [general?: string, adult?: string]>({ maxAgeMs: Infinity, maxSize: maxAddresses / 2 })
  return {
    hasAny: (address: string): boolean => keys.get(address) !== undefined,

    get: (address: string, seesAdultContent: boolean): string | undefined => keys.get(address)?.[Number(seesAdultContent)],

    set (address: string, seesAdultContent: boolean, key: string): void {
      if (address.length > maxAddressLength) return
      const ofAddress = keys.get(address) ?? []
      // Set anew with each load, so that an address that is in use stays.
      keys.set(address, ofAddress)
      ofAddress[Number(seesAdultContent)] = key
    },

    get addresses (): string[] { return keys.keys() }
  }
}
