module github.com/keymount/keymount/tools/configdoc

go 1.26.0
