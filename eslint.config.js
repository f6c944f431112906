import neostandard from 'neostandard'

export default [
  { ignores: ['dist/', '.data/', '.tap/', 'bench/results/', 'client/dist/', 'client/generated-clients/generated/', 'client/schema.ts'] },
  ...neostandard({ ts: true }),
  {
    files: ['**/*.ts'],
    // A TypeBox schema and its type share a name on purpose; tsc finds the redeclarations that are mistakes.
    rules: {
      '@typescript-eslint/no-redeclare': 'off',
      '@stylistic/max-len': ['error', { code: 120, ignoreUrls: true, ignoreStrings: true, ignoreTemplateLiterals: true, ignoreRegExpLiterals: true }]
    }
  },
  // Pieces of source code, of template strings among it.
  { files: ['test/mutations/table.ts'], rules: { 'no-template-curly-in-string': 'off' } }
]
