/** The videos of the operations, each once, and their 1-based positions for Lua. */
export function indexVideos (operations: { videoId: number }[]) {
  const positions = new Map<number, number>()
  for (const { videoId } of operations) {
    if (!positions.has(videoId)) positions.set(videoId, positions.size + 1)
  }
  return { ids: [...positions.keys()], indexOf: (videoId: number): number => positions.get(videoId)! }
}
