import pg from 'pg'

/** int8 comes as text by default; ids and counts stay far below 2^53. */
export const integersAsNumbers = {
  getTypeParser (oid: number, format?: 'text' | 'binary') {
    return oid === pg.types.builtins.INT8 ? Number : pg.types.getTypeParser(oid, format as 'text')
  }
}
