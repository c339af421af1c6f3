// Package form turns a secret into the bytes of a file: a whole secret in a
// [Format], an encoded value decoded, or a text out of a [Template]. Everything
// here is pure: the same input gives the same bytes, nothing is read or kept,
// and no error holds a value.
package form
