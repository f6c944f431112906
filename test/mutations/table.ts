/** A bug of one line. */
export interface Mutation {
  file: string
  /** Stands in the file once. */
  from: string
  to: string
  /** The test file that it turns red. */
  test: string
  why: string
  /** It changes nothing: its test must stay green. */
  isControl?: boolean
}

export const mutations: Mutation[] = []
